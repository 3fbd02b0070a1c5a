//! Every return code of PKCS#11, from every function of the data path and of the background.

use support::load::{Load, Operation, Report};
use xksd::hsm::codes::{self, Code};

use crate::figures::Row;
use crate::world::{Isolation, Scale, World};

const INTERNAL: &str = "InternalException";
const LATE: &str = "DependencyTimeoutException";
const THROTTLED: &str = "ThrottlingException";
const KEY_USAGE: &str = "InvalidKeyUsageException";
const BAD_CIPHERTEXT: &str = "InvalidCiphertextException";

/// A function, and how its code is returned.
#[derive(Debug, Clone, Copy)]
struct Place {
    function: &'static str,
    /// Whether the call is made before the code is returned: C_Encrypt and C_Decrypt end what their
    /// Init has begun, whatever they say.
    after: &'static str,
    /// What has to happen for the function to be called at all.
    cause: &'static str,
}

const fn place(function: &'static str) -> Place {
    Place { function, after: "", cause: "" }
}

const PLACES: [Place; 10] = [
    place("C_EncryptInit"),
    Place { after: " after", ..place("C_Encrypt") },
    place("C_DecryptInit"),
    Place { after: " after", ..place("C_Decrypt") },
    place("C_GenerateRandom"),
    // A session that is lost is what makes another be opened.
    Place { cause: "C_EncryptInit every 5 return CKR_SESSION_CLOSED\n", ..place("C_OpenSession") },
    place("C_FindObjectsInit"),
    place("C_FindObjects"),
    place("C_FindObjectsFinal"),
    place("C_GetAttributeValue"),
];

/// Those that stand for the rest in the short form: one of each kind that is treated differently.
const FEW: [Code; 12] = [
    codes::GENERAL_ERROR,
    codes::ARGUMENTS_BAD,
    codes::ATTRIBUTE_TYPE_INVALID,
    codes::DEVICE_ERROR,
    codes::DEVICE_MEMORY,
    codes::ENCRYPTED_DATA_INVALID,
    codes::KEY_HANDLE_INVALID,
    codes::KEY_FUNCTION_NOT_PERMITTED,
    codes::PIN_EXPIRED,
    codes::SESSION_HANDLE_INVALID,
    codes::USER_NOT_LOGGED_IN,
    codes::CRYPTOKI_NOT_INITIALIZED,
];

/// The error names that may answer a sound request while this function returns this code, beyond
/// those that say that asking again may help. Written down by the meaning that PKCS#11 and the
/// profile of SoftHSM2 give to the code, not by what the daemon makes of it.
fn permitted(function: &str, code: Code, operation: Operation) -> &'static [&'static str] {
    let is_crypt = ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"].contains(&function);
    match code {
        // The token says that the key must not be used so.
        codes::KEY_FUNCTION_NOT_PERMITTED
        | codes::KEY_TYPE_INCONSISTENT
        | codes::KEY_SIZE_RANGE
        | codes::KEY_EXHAUSTED
            if is_crypt =>
        {
            &[KEY_USAGE]
        }
        // The token says that the ciphertext is bad, which nobody but it can know.
        codes::ENCRYPTED_DATA_INVALID
        | codes::ENCRYPTED_DATA_LEN_RANGE
        | codes::AEAD_DECRYPT_FAILED
            if function == "C_Decrypt" && operation == Operation::Decrypt =>
        {
            &[BAD_CIPHERTEXT]
        }
        // On SoftHSM2 and others this is what a bad ciphertext looks like, and the token has just
        // decrypted another one.
        codes::GENERAL_ERROR
        | codes::FUNCTION_FAILED
        | codes::DATA_INVALID
        | codes::DATA_LEN_RANGE
        | codes::SIGNATURE_INVALID
            if function == "C_Decrypt" && operation == Operation::Decrypt =>
        {
            &[BAD_CIPHERTEXT]
        }
        codes::MECHANISM_PARAM_INVALID
            if function == "C_DecryptInit" && operation == Operation::Decrypt =>
        {
            &[BAD_CIPHERTEXT]
        }
        _ => &[],
    }
}

/// All codes from all places; each place has a daemon of its own, which lives through all of it.
pub(crate) fn all(scale: Scale, isolation: Isolation) -> Vec<Row> {
    std::thread::scope(|scope| {
        let one = |place| scope.spawn(move || one_place(scale, isolation, place));
        let threads: Vec<_> = PLACES.into_iter().map(one).collect();
        let rows = threads.into_iter().map(|thread| thread.join());
        rows.map(|row| row.unwrap_or_else(|why| std::panic::resume_unwind(why))).collect()
    })
}

/// Every code from one function: once, at 1% and at 10% of the calls.
fn one_place(scale: Scale, isolation: Isolation, place: Place) -> Row {
    // Readings and probes all the time, so that what they call is called under each script.
    let settings = [("catalogue_interval", "100ms"), ("probe_interval", "200ms")];
    let mut world = World::new(scale, isolation, &settings);
    let codes: Vec<Code> = match scale {
        Scale::Short => FEW.to_vec(),
        Scale::Long => codes::ALL.iter().map(|(code, _)| *code).collect(),
    };
    // Something to decrypt.
    let mut sum = load(&world).send(&world.vault, 10);
    assert!(!world.vault.is_empty());
    for code in codes.into_iter().filter(|code| *code != codes::OK) {
        for (share, requests) in shares(scale, isolation) {
            let Place { function, after, cause } = place;
            let rule = format!("{function} {share} return {:#x}{after}", code.0);
            world.script(&format!("{cause}{rule}\n"));
            let report = load(&world).send(&world.vault, *requests);
            check(&report, place, code, &world);
            world.script("");
            world.wait_recovered();
            sum.add(report);
        }
    }
    let what = format!("codes from {} ({})", place.function, isolation.name());
    world.finish(&what, &sum)
}

/// At which of the calls, and how many requests are sent meanwhile.
fn shares(scale: Scale, isolation: Isolation) -> &'static [(&'static str, usize)] {
    match (scale, isolation) {
        (Scale::Long, _) => &[("nth 1", 10), ("share 1%", 100), ("share 10%", 30)],
        (Scale::Short, Isolation::Process) => &[("nth 1", 6), ("share 10%", 14)],
        // All but the backend is the same.
        (Scale::Short, Isolation::Thread) => &[("nth 1", 6)],
    }
}

fn load(world: &World) -> Load {
    let rate = 50.0;
    Load { connections: 4, rate, ..world.load() }
}

/// No answer is wrong, and no error name says more than the code does.
fn check(report: &Report, place: Place, code: Code, world: &World) {
    let Place { function, .. } = place;
    assert_eq!(report.wrong(), [""; 0], "{code} from {function}");
    for record in &report.records {
        let operation = record.operation;
        let permitted =
            [&[INTERNAL, LATE, THROTTLED], permitted(function, code, operation)].concat();
        let support::load::Outcome::Refused(name) = &record.outcome else { continue };
        assert!(
            permitted.contains(&name.as_str()),
            "{code} from {function}: {operation:?} was answered with {name}\n{}",
            world.said()
        );
    }
}

#[test]
fn no_code_is_answered_wrongly_by_a_module_of_its_own_process() {
    all(Scale::Short, Isolation::Process);
}

#[test]
fn no_code_is_answered_wrongly_by_a_module_on_threads() {
    all(Scale::Short, Isolation::Thread);
}
