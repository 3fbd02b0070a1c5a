//! Answers are the real module's, and where there is none the client is told why.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use libloading::Library;
use support::shim::{self, Counts};
use support::token;

use crate::house::{Client, House, answer, generate_key, path_in, run};

fn gcm(iv: &mut [u8]) -> Mechanism<'_> {
    let params = GcmParams::new(iv, b"additional data", 128.into()).expect("they fit");
    Mechanism::AesGcm(params)
}

#[test]
fn a_client_logs_in_makes_a_key_and_encrypts_with_it() {
    if let Some(client) = Client::of_this_process() {
        let session = client.log_in();
        let key = generate_key(&session, "key");
        let found = session.find_objects(&[Attribute::Label(b"key".to_vec())]);
        assert_eq!(found.expect("objects can be found"), [key]);

        let mut iv = [0; 12];
        session.generate_random_slice(&mut iv).expect("there are random bytes");
        let mut ciphertext =
            session.encrypt(&gcm(&mut iv), key, b"plaintext").expect("it is encrypted");
        assert_eq!(ciphertext.len(), b"plaintext".len() + 16);
        let plaintext = session.decrypt(&gcm(&mut iv), key, &ciphertext).expect("it is decrypted");
        assert_eq!(plaintext, b"plaintext");

        ciphertext[0] ^= 1;
        session.decrypt(&gcm(&mut iv), key, &ciphertext).expect_err("the tag does not fit");
        session.destroy_object(key).expect("the key can be destroyed");
        return;
    }
    let test = "forwarding::a_client_logs_in_makes_a_key_and_encrypts_with_it";
    assert_eq!(run(&mut House::build().client(test)), "");
}

#[test]
fn errors_are_the_real_modules_own() {
    if let Some(client) = Client::of_this_process() {
        client.initialize().expect("the module behind the shim starts");
        assert_eq!(answer(client.initialize()), RvError::CryptokiAlreadyInitialized);
        let session = client.open_session();
        let login = session.login(UserType::User, Some(&AuthPin::from("not the PIN")));
        assert_eq!(answer(login), RvError::PinIncorrect);
        return;
    }
    run(&mut House::build().client("forwarding::errors_are_the_real_modules_own"));
}

#[test]
fn nothing_but_loading_works_before_c_initialize() {
    if let Some(client) = Client::of_this_process() {
        let info = client.pkcs11.get_library_info();
        assert_eq!(answer(info), RvError::CryptokiNotInitialized);
        client.initialize().expect("the module behind the shim starts");
        let info = client.pkcs11.get_library_info().expect("now it answers");
        assert_eq!(info.manufacturer_id(), "SoftHSM");
        return;
    }
    run(&mut House::build().client("forwarding::nothing_but_loading_works_before_c_initialize"));
}

#[test]
fn c_initialize_fails_without_a_real_module_and_says_why() {
    if let Some(client) = Client::of_this_process() {
        assert_eq!(answer(client.initialize()), RvError::GeneralError);
        let info = client.pkcs11.get_library_info();
        assert_eq!(answer(info), RvError::CryptokiNotInitialized);
        return;
    }
    let house = House::build();
    let stderr_with = |module: &str| {
        let test = "forwarding::c_initialize_fails_without_a_real_module_and_says_why";
        run(house.client(test).env("PKCS11_SHIM_MODULE", module))
    };
    let stderr = stderr_with("/nowhere/module.so");
    assert!(stderr.starts_with("pkcs11-shim: cannot load `/nowhere/module.so`: "), "{stderr}");
    let stderr = stderr_with("libc.so.6");
    assert!(stderr.starts_with("pkcs11-shim: `libc.so.6` is no PKCS#11 module: "), "{stderr}");
    let itself = shim::library();
    let stderr = stderr_with(itself.to_str().expect("the path is UTF-8"));
    assert!(stderr.contains("PKCS11_SHIM_MODULE names the shim itself"), "{stderr}");
}

#[test]
fn all_functions_are_exported_as_symbols() {
    if Client::of_this_process().is_some() {
        let counts = Counts::read(&path_in("PKCS11_SHIM_COUNTS"));
        let functions: Vec<&str> = counts.functions().collect();
        let is_newer = |name: &&str| {
            ["Message", "Interface", "LoginUser", "SessionCancel"].iter().any(|n| name.contains(n))
        };
        let (newer, old): (Vec<_>, Vec<_>) = functions.iter().copied().partition(is_newer);
        assert_eq!((old.len(), newer.len()), (68, 24), "of PKCS#11 2.40, and of 3.0");
        #[allow(unsafe_code, reason = "what is tested is a C library")]
        // The other is of PKCS#11 2.40.
        for (path, functions) in [(shim::library(), &functions[..]), (token::module(), &old[..])] {
            // SAFETY: both libraries can be loaded at any time; the client has done it before.
            let library = unsafe { Library::new(&path) }.expect("it can be loaded");
            for function in functions {
                // SAFETY: the symbol is looked up and not used.
                let symbol = unsafe { library.get::<*const ()>(function.as_bytes()) };
                assert!(symbol.is_ok(), "no {function} in {}", path.display());
            }
        }
        return;
    }
    let house = House::build();
    let mut client = house.client("forwarding::all_functions_are_exported_as_symbols");
    // The file is made at the first call, which is C_GetFunctionList.
    run(client.env("PKCS11_SHIM_COUNTS", house.counts()));
}
