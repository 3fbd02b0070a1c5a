use proptest::prelude::*;

use super::super::Launch;
use super::*;
use crate::hsm::{codes, profile};

/// A frame as it is received, length and all.
fn frame(writer: &Writer) -> Vec<u8> {
    [&[0; 4], writer.content()].concat()
}

const HANDLE: ObjectHandle = ObjectHandle { generation: 3 << 32 | 7, number: u64::MAX };

fn requests() -> Vec<Request<'static>> {
    let (iv, tag) = ([1; IV_LEN], [2; TAG_LEN]);
    vec![
        Request::Connect,
        Request::Open,
        Request::Close,
        Request::Random(768),
        Request::Encrypt { key: HANDLE, iv, aad: b"aad", plaintext: b"plain" },
        Request::Decrypt { key: HANDLE, iv: &[3; 16], aad: b"", ciphertext: b"cipher", tag },
        Request::Objects,
        Request::ReadChangeable(HANDLE),
        Request::ReadAttributes(HANDLE),
        Request::MakeProbeKey,
        Request::Sign { key: HANDLE, how: Signing::EcdsaP256, input: &[7; 32] },
        Request::Sign { key: HANDLE, how: Signing::HmacSha256, input: &[8; 200] },
    ]
}

fn gifts() -> Vec<Gift> {
    let changeable = ChangeableAttributes {
        label: b"\xff\0".to_vec(),
        id: b"id".to_vec(),
        encrypt: true,
        decrypt: false,
    };
    let attributes = |kind, check_value| KeyAttributes {
        changeable: changeable.clone(),
        kind,
        check_value,
        usage: Usage { verify: true, derive: true, ..Usage::default() },
    };
    let sealed = Sealed { iv: Iv::Sixteen([1; 16]), ciphertext: vec![4; 5000], tag: [2; TAG_LEN] };
    let identity = TokenIdentity { model: "m".into(), ..TokenIdentity::default() };
    vec![
        Gift::Done,
        Gift::Identity(identity, true),
        Gift::Random(Zeroizing::new(vec![5; 768])),
        Gift::Sealed(sealed),
        Gift::Opened(Plaintext::new(b"plain".to_vec())),
        Gift::Objects(vec![HANDLE; 1000]),
        Gift::Changeable(changeable.clone()),
        Gift::Attributes(attributes(KeyKind::Aes { bits: 256 }, Some([7, 8, 9]))),
        Gift::Attributes(attributes(KeyKind::Other("RSA_2048".into()), None)),
        Gift::Object(HANDLE),
        Gift::Signature(vec![6; 64]),
    ]
}

fn calls() -> Vec<HsmCall> {
    let took = Duration::from_micros(13);
    vec![
        HsmCall { function: "C_EncryptInit", took, code: codes::OK },
        HsmCall { function: "C_Encrypt", took, code: codes::DEVICE_ERROR },
    ]
}

#[test]
fn requests_arrive_as_they_were_sent() {
    for request in requests() {
        assert_eq!(Request::read(&frame(&request.write())), Ok(request));
    }
}

#[test]
fn answers_arrive_as_they_were_sent() {
    let words = Words::default();
    let fault = Fault::returned("C_Encrypt", codes::DEVICE_ERROR);
    for result in gifts().into_iter().map(Ok).chain([Err(fault)]) {
        let answer = Answer { calls: calls(), result };
        assert_eq!(Answer::read(&frame(&answer.write()), &words), Ok(answer));
    }
}

fn settings(selector: TokenSelector, initialization: Option<CString>) -> Settings {
    let launch =
        Launch { program: "/xksd".into(), arguments: Vec::new(), environment: Default::default() };
    Settings {
        token: "test".parse().unwrap(),
        module: "/a module.so".into(),
        selector,
        profile: initialization.as_ref().map(|_| &profile::GENERIC),
        initialization,
        hidden: vec!["/a secret".into(), "/another".into()],
        launch,
        call_limit: Duration::from_secs(1),
    }
}

#[test]
fn a_hello_arrives_as_it_was_sent() {
    let pin = Secret::new("1234".to_owned());
    for settings in [
        settings(TokenSelector::Label("token".to_owned()), None),
        settings(TokenSelector::Serial("1234".to_owned()), Some(c"text".to_owned())),
        settings(TokenSelector::Label(String::new()), Some(c"".to_owned())),
    ] {
        let hello = Hello::read(&frame(&Hello::write(&settings, &pin)));
        let hello = hello.expect("it was just written");
        assert!(hello.module == settings.module && hello.pin == pin);
        assert_eq!(hello.selector, settings.selector);
        let name = |profile: Option<&'static Profile>| profile.map(|profile| profile.name);
        assert_eq!(name(hello.profile), name(settings.profile));
        assert_eq!(hello.initialization, settings.initialization);
        assert_eq!(hello.hidden, settings.hidden);
    }
}

/// What may hold a plaintext is never moved while it is written.
#[test]
fn frames_with_secrets_do_not_grow() {
    let large = vec![1; 100_000];
    let plaintext = Request::Encrypt { key: HANDLE, iv: [0; 12], aad: &large, plaintext: &large };
    let opened = Gift::Opened(Plaintext::new(large.clone()));
    let answer = Answer { calls: calls(), result: Ok(opened) };
    let selector = TokenSelector::Label("l".repeat(1000));
    let pin = Secret::new("p".repeat(1000));
    let hello = Hello::write(&settings(selector, Some(c"text".to_owned())), &pin);
    for writer in [plaintext.write(), answer.write(), hello] {
        assert!(writer.fits(), "it was longer than foreseen");
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let words = Words::default();
        if let Ok(request) = Request::read(&bytes) {
            prop_assert_eq!(&frame(&request.write())[4..], bytes.get(4..).unwrap_or_default());
        }
        let _ = Answer::read(&bytes, &words);
        let _ = Hello::read(&bytes);
    }

    #[test]
    fn cut_answers_are_refused(cut in 0_usize..100) {
        for gift in gifts() {
            let whole = frame(&Answer { calls: calls(), result: Ok(gift) }.write());
            let cut = whole.len().saturating_sub(cut + 1).max(4);
            prop_assert!(Answer::read(&whole[..cut], &Words::default()).is_err());
        }
    }
}
