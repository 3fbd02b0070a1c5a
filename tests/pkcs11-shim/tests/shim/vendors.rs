//! Each play, on a token of SoftHSM2.

use cryptoki::error::RvError;
use cryptoki_sys::{
    CKR_BUFFER_TOO_SMALL, CKR_ENCRYPTED_DATA_INVALID, CKR_FUNCTION_FAILED,
    CKR_MECHANISM_PARAM_INVALID,
};

use crate::gcm::{Answer, Gcm, TAG};
use crate::house::{Client, answer, change_script, counts, generate_key, with_script};

const PLAINTEXT: &[u8] = b"plaintext";
const LENGTH: usize = PLAINTEXT.len() + TAG;
const APPENDED: usize = 16;

fn names(client: &Client) -> [String; 4] {
    let library = client.pkcs11.get_library_info().expect("it answers");
    let token = client.pkcs11.get_token_info(client.slot()).expect("it answers");
    assert_eq!(token.label(), "shim", "what is not named stays");
    [
        library.manufacturer_id(),
        library.library_description(),
        token.manufacturer_id(),
        token.model(),
    ]
    .map(str::to_owned)
}

/// The token makes the IV in the caller's buffer of zeros, and the caller decrypts with it.
fn check_iv_in_place(gcm: &Gcm<'_>) {
    let mut ivs = [[0; 12]; 2];
    for iv in &mut ivs {
        assert_eq!(gcm.encrypt_init(iv), 0);
        assert_ne!(*iv, [0; 12]);
        let ciphertext = gcm.encrypt(PLAINTEXT, Some(LENGTH)).output();
        assert_eq!(gcm.decrypt(&mut iv.clone(), &ciphertext).output(), PLAINTEXT);
    }
    assert_ne!(ivs[0], ivs[1]);
    for iv in [&mut [1; 12][..], &mut [0; 16], &mut [0; 0]] {
        assert_eq!(gcm.encrypt_init(iv), CKR_MECHANISM_PARAM_INVALID);
    }
}

fn code_for_a_bad_tag(gcm: &Gcm<'_>) -> u64 {
    gcm.decrypt(&mut [7; 12], &[0; LENGTH]).code
}

#[test]
fn cloudhsm() {
    with_script("vendors::cloudhsm", "play cloudhsm", |client| {
        let session = client.log_in();
        assert_eq!(names(client), ["CloudHSM", "CloudHSM PKCS#11", "CloudHSM", "CloudHSM"]);
        let read_only = client.pkcs11.open_ro_session(client.slot());
        assert_eq!(answer(read_only), RvError::FunctionFailed);
        check_iv_in_place(&Gcm::new(&session, generate_key(&session, "key")));
    });
}

#[test]
fn cloudhsm_busy() {
    with_script("vendors::cloudhsm_busy", "play cloudhsm\nplay cloudhsm-busy", |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        let mut busy = [0, 0];
        for _ in 0..100 {
            let mut iv = [0; 12];
            assert_eq!(gcm.encrypt_init(&mut iv), 0, "a refusal leaves nothing behind");
            let answer = gcm.encrypt(PLAINTEXT, Some(LENGTH));
            busy[0] += usize::from(answer.code == CKR_FUNCTION_FAILED);
            let answer = gcm.decrypt(&mut iv, &answer.buffer);
            busy[1] += usize::from(answer.code == CKR_FUNCTION_FAILED);
        }
        assert!(busy.iter().all(|busy| (1..30).contains(busy)), "one in ten: {busy:?}");
    });
}

#[test]
fn nshield() {
    with_script("vendors::nshield", "play nshield", |client| {
        let session = client.log_in();
        let ncipher = "nCipher Corp. Ltd";
        assert_eq!(names(client), [ncipher, "nCipher PKCS#11", ncipher, "nShield"]);
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        check_iv_in_place(&gcm);
        assert_eq!(code_for_a_bad_tag(&gcm), CKR_FUNCTION_FAILED);
    });
}

#[test]
fn luna() {
    with_script("vendors::luna", "play luna", |client| {
        let session = client.log_in();
        assert_eq!(names(client), ["SafeNet", "Chrystoki", "SafeNet, Inc.", "Luna K7"]);
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        assert_eq!(gcm.encrypt_init(&mut [7; 12]), 0);
        let ciphertext = gcm.encrypt(PLAINTEXT, Some(LENGTH)).output();
        assert_eq!(gcm.decrypt(&mut [7; 12], &ciphertext).output(), PLAINTEXT);
        assert_eq!(code_for_a_bad_tag(&gcm), CKR_ENCRYPTED_DATA_INVALID);
    });
}

#[test]
fn luna_fips() {
    with_script("vendors::luna_fips", "play luna-fips", |client| {
        let session = client.log_in();
        assert_eq!(names(client)[3], "Luna K7");
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        let mut ivs = Vec::new();
        for _ in 0..2 {
            assert_eq!(gcm.encrypt_init(&mut []), 0);
            let output = gcm.encrypt(PLAINTEXT, Some(LENGTH + APPENDED + 8));
            assert_eq!((output.code, output.told), (0, LENGTH + APPENDED));
            assert_eq!(output.buffer[output.told..], [Answer::UNTOUCHED; 8]);
            let output = output.output();
            let (ciphertext, iv) = output.split_at(LENGTH);
            assert_eq!(gcm.decrypt(&mut iv.to_vec(), ciphertext).output(), PLAINTEXT);
            ivs.push(iv.to_vec());
        }
        assert_ne!(ivs[0], ivs[1]);
        assert_eq!(gcm.encrypt_init(&mut [0; 12]), CKR_MECHANISM_PARAM_INVALID);
        assert_eq!(code_for_a_bad_tag(&gcm), CKR_ENCRYPTED_DATA_INVALID);
    });
}

#[test]
fn an_appended_iv_is_in_the_lengths_too() {
    let script = "C_EncryptInit iv appended";
    with_script("vendors::an_appended_iv_is_in_the_lengths_too", script, |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        assert_eq!(gcm.encrypt_init(&mut []), 0);
        assert_eq!(gcm.encrypt(PLAINTEXT, None).told, LENGTH + APPENDED);
        let small = gcm.encrypt(PLAINTEXT, Some(LENGTH + APPENDED - 1));
        assert_eq!((small.code, small.told), (CKR_BUFFER_TOO_SMALL, LENGTH + APPENDED));
        assert_eq!(small.buffer, [Answer::UNTOUCHED; LENGTH + APPENDED - 1]);
        let output = gcm.encrypt(PLAINTEXT, Some(LENGTH + APPENDED)).output();
        let (ciphertext, iv) = output.split_at(LENGTH);
        change_script("");
        assert_eq!(gcm.decrypt(&mut iv.to_vec(), ciphertext).output(), PLAINTEXT);
        assert_eq!(gcm.encrypt_init(&mut iv.to_vec()), 0);
        assert_eq!(
            gcm.encrypt(PLAINTEXT, Some(99)).output(),
            ciphertext,
            "nothing is appended now"
        );
    });
}

#[test]
fn nothing_is_appended_after_a_multi_part_encryption() {
    let test = "vendors::nothing_is_appended_after_a_multi_part_encryption";
    with_script(test, "C_EncryptInit iv appended nth 1", |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        assert_eq!(gcm.encrypt_init(&mut []), 0);
        assert_eq!(gcm.encrypt_final(99).told, TAG);
        assert_eq!(gcm.encrypt_init(&mut [7; 12]), 0);
        assert_eq!(gcm.encrypt(PLAINTEXT, Some(99)).told, LENGTH);
    });
}

#[test]
fn a_token_may_make_the_same_iv_again() {
    let script = "C_EncryptInit iv in-place same";
    with_script("vendors::a_token_may_make_the_same_iv_again", script, |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        let encrypt = || {
            let mut iv = [0; 12];
            assert_eq!(gcm.encrypt_init(&mut iv), 0);
            (iv, gcm.encrypt(PLAINTEXT, Some(LENGTH)).output())
        };
        assert_eq!(encrypt(), encrypt());
        change_script("C_EncryptInit iv in-place");
        assert_ne!(encrypt(), encrypt());
        assert_eq!(counts().of("C_GenerateRandom"), 0, "the shim's own calls are not the client's");
    });
}
