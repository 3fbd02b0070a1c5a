//! Outputs that are not what the real module gave.

use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;

use crate::gcm::{Answer, Gcm, TAG};
use crate::house::{change_script, generate_key, with_script};

const IV: [u8; 12] = [7; 12];
const PLAINTEXT: &[u8] = b"plaintext";
const LENGTH: usize = PLAINTEXT.len() + TAG;

fn encrypt(gcm: &Gcm<'_>, size: usize) -> Answer {
    assert_eq!(gcm.encrypt_init(&mut IV.clone()), 0);
    gcm.encrypt(PLAINTEXT, Some(size))
}

fn different_bits(left: &[u8], right: &[u8]) -> u32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left ^ right).count_ones()).sum()
}

fn found(session: &Session, label: &str) -> ObjectHandle {
    let found = session.find_objects(&[Attribute::Label(label.as_bytes().to_vec())]);
    let [key] = found.expect("objects can be found")[..] else { panic!("one key has the label") };
    key
}

fn label(session: &Session, key: ObjectHandle) -> Vec<u8> {
    let label = session.get_attributes(key, &[AttributeType::Label]);
    match &label.expect("it has one")[..] {
        [Attribute::Label(label)] => label.clone(),
        other => panic!("{other:?}"),
    }
}

fn random(session: &Session, length: u32) -> Vec<u8> {
    session.generate_random_vec(length).expect("there are random bytes")
}

#[test]
fn bits_of_the_output_are_flipped_and_no_others() {
    let test = "lies::bits_of_the_output_are_flipped_and_no_others";
    with_script(test, "", |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        let honest = encrypt(&gcm, LENGTH + 8).buffer;
        let decrypted = gcm.decrypt(&mut IV.clone(), &honest[..LENGTH]);
        assert_eq!((decrypted.told, &decrypted.buffer[..PLAINTEXT.len()]), (9, PLAINTEXT));

        change_script("C_Encrypt flip\nC_Decrypt flip 3");
        let mut places = Vec::new();
        for _ in 0..50 {
            let Answer { code, told, buffer } = encrypt(&gcm, LENGTH + 8);
            assert_eq!((code, told), (0, LENGTH));
            assert_eq!(different_bits(&buffer, &honest), 1);
            assert_eq!(buffer[LENGTH..], [Answer::UNTOUCHED; 8]);
            places.push(buffer);
        }
        places.sort();
        places.dedup();
        assert!(places.len() > 20, "the place is by chance");
        let decrypted = gcm.decrypt(&mut IV.clone(), &honest[..LENGTH]).output();
        assert_eq!(different_bits(&decrypted, PLAINTEXT), 3);

        change_script("C_GenerateRandom zero\nC_GenerateRandom flip every 2");
        assert_eq!(different_bits(&random(&session, 8), &[0; 8]), 0);
        assert_eq!(different_bits(&random(&session, 8), &[0; 8]), 1);
    });
}

#[test]
fn lengths_are_told_short_and_long_and_the_bytes_stay() {
    with_script("lies::lengths_are_told_short_and_long_and_the_bytes_stay", "", |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        let honest = encrypt(&gcm, LENGTH + 8);
        for (rule, told) in [
            ("short", LENGTH - 1),
            ("short 16", LENGTH - 16),
            ("short 1000", 0),
            ("long", LENGTH + 1),
            ("long 1000", LENGTH + 1000),
        ] {
            change_script(&format!("C_Encrypt {rule}\nC_Encrypt flip nth 2"));
            let lie = encrypt(&gcm, LENGTH + 8);
            assert_eq!((lie.code, lie.told), (0, told), "{rule}");
            assert_eq!(lie.buffer, honest.buffer, "{rule}");
            let flipped = encrypt(&gcm, LENGTH + 8);
            assert_eq!(different_bits(&flipped.buffer[..LENGTH], &honest.buffer[..LENGTH]), 1);
            assert_eq!(flipped.buffer[LENGTH..], honest.buffer[LENGTH..], "not behind its end");
        }
        // A module that forgets the tag when it is asked for the length alone.
        change_script("C_Encrypt short 16");
        assert_eq!(gcm.encrypt_init(&mut IV.clone()), 0);
        assert_eq!(gcm.encrypt(PLAINTEXT, None).told, PLAINTEXT.len());
    });
}

#[test]
fn the_buffer_of_a_call_that_fails_is_left_alone() {
    let script = "C_Decrypt zero\nC_Decrypt long 3";
    with_script("lies::the_buffer_of_a_call_that_fails_is_left_alone", script, |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        let failed = gcm.decrypt(&mut IV.clone(), &[1; LENGTH]);
        assert_ne!(failed.code, 0);
        change_script("");
        assert_eq!(gcm.decrypt(&mut IV.clone(), &[1; LENGTH]), failed);
    });
}

#[test]
fn handles_change_their_meaning_with_c_initialize() {
    let script = "C_Initialize renumber nth 2";
    with_script("lies::handles_change_their_meaning_with_c_initialize", script, |client| {
        let session = client.log_in();
        let old = ["A", "B"].map(|label| generate_key(&session, label));
        drop(session);
        let again = client.again();
        let session = again.log_in();
        let new = ["A", "B"].map(|label| found(&session, label));
        assert_eq!(new.map(|key| key.handle()), [old[1].handle(), old[0].handle()]);
        assert_eq!(label(&session, new[0]), b"A");
        assert_eq!(label(&session, old[0]), b"B");
        drop(session);
        let again = again.again();
        let session = again.log_in();
        // SoftHSM2 counts handles, so the same calls give the same ones.
        assert_eq!(["A", "B"].map(|label| found(&session, label)), old, "only the second time");
    });
}

#[test]
fn handles_change_their_meaning_while_they_are_in_use() {
    let test = "lies::handles_change_their_meaning_while_they_are_in_use";
    with_script(test, "", |client| {
        let session = client.log_in();
        let [a, b] = ["A", "B"].map(|label| generate_key(&session, label));
        change_script("C_DecryptInit renumber nth 2");
        let ciphertext = encrypt(&Gcm::new(&session, a), LENGTH).output();
        let decrypt = |key| Gcm::new(&session, key).decrypt(&mut IV.clone(), &ciphertext);
        assert_eq!(decrypt(a).output(), PLAINTEXT);
        assert_ne!(decrypt(a).code, 0, "from now on that is the handle of B");
        assert_eq!(decrypt(b).output(), PLAINTEXT);
        assert_eq!((label(&session, a), label(&session, b)), (b"B".to_vec(), b"A".to_vec()));
        session.destroy_object(a).expect("B is destroyed");
        assert_eq!(found(&session, "A"), b);
        let left = session.find_objects(&[Attribute::Label(b"B".to_vec())]);
        assert_eq!(left.expect("objects can be found"), []);
    });
}

#[test]
fn a_generator_that_gives_zeros_or_the_same_again() {
    with_script("lies::a_generator_that_gives_zeros_or_the_same_again", "", |client| {
        let session = client.log_in();
        assert_ne!(random(&session, 12), random(&session, 12));
        change_script("C_GenerateRandom zero");
        assert_eq!(random(&session, 12), [0; 12]);
        change_script("C_GenerateRandom same");
        let first = random(&session, 12);
        assert_eq!(random(&session, 12), first);
        assert_eq!(random(&session, 20)[..12], first);
        change_script("C_GenerateRandom same from 2");
        assert_ne!(random(&session, 12), first);
        let second = random(&session, 12);
        assert_ne!(second, first, "each script begins anew");
        assert_eq!(random(&session, 12), second);
    });
}
