//! What the two processes say to each other.
//!
//! The parent says [`Hello`] once, on the control socket. After that each session has a socket of
//! its own, on which the parent sends a [`Request`] and the child an [`Answer`], in turn.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Settings;
use super::frame::{LENGTH, Malformed, Reader, Writer, content};
use super::words::{self, FAULT_ROOM, Words};
use crate::hsm::backend::{
    ChangeableAttributes, IV_LEN, ObjectHandle, Sealed, Signing, TAG_LEN, TokenIdentity,
};
use crate::hsm::codes::Code;
use crate::hsm::fault::Fault;
use crate::hsm::key::{KeyAttributes, KeyKind, Usage};
use crate::hsm::pkcs11::TokenSelector;
use crate::hsm::profile::Profile;
use crate::metrics::HsmCall;
use crate::secret::{Plaintext, Secret};
use crate::wire::gcm::Iv;

/// Room for what a message holds besides bytes of its own.
const FIXED: usize = 64;

/// Size of a call in an answer.
const CALL: usize = 2 + 8 + 8;

/// Which library and token, the PIN, and what is none of its business.
pub(super) struct Hello {
    pub(super) module: PathBuf,
    pub(super) selector: TokenSelector,
    pub(super) profile: Option<&'static Profile>,
    pub(super) initialization: Option<CString>,
    pub(super) hidden: Vec<PathBuf>,
    pub(super) pin: Secret<String>,
}

impl Hello {
    pub(super) fn write(settings: &Settings, pin: &Secret<String>) -> Writer {
        let Settings { module, selector, profile, initialization, hidden, .. } = settings;
        let (kind, name) = match selector {
            TokenSelector::Label(label) => (0, label),
            TokenSelector::Serial(serial) => (1, serial),
        };
        let module = module.as_os_str().as_bytes();
        let profile = profile.map_or("", |profile| profile.name);
        let text = initialization.as_ref().map_or(&[][..], |text| text.as_bytes());
        let pin = pin.expose().as_bytes();
        let room = module.len() + name.len() + profile.len() + text.len() + pin.len();
        let files: usize = hidden.iter().map(|file| LENGTH + file.as_os_str().len()).sum();
        let mut writer = Writer::with_room(FIXED + room + files);
        writer.bytes(module);
        writer.u8(kind);
        writer.bytes(name.as_bytes());
        writer.bytes(profile.as_bytes());
        writer.flag(initialization.is_some());
        writer.bytes(text);
        writer.count(hidden.len());
        for file in hidden {
            writer.bytes(file.as_os_str().as_bytes());
        }
        writer.bytes(pin);
        writer
    }

    pub(super) fn read(frame: &[u8]) -> Result<Self, Malformed> {
        let mut reader = content(frame);
        let module = PathBuf::from(OsStr::from_bytes(reader.bytes()?));
        let kind = reader.u8()?;
        let name = reader.text()?.to_owned();
        let selector = match kind {
            0 => TokenSelector::Label(name),
            1 => TokenSelector::Serial(name),
            _ => return Err(Malformed),
        };
        let profile = match reader.text()? {
            "" => None,
            name => Some(Profile::named(name).ok_or(Malformed)?),
        };
        let is_given = reader.flag()?;
        let text = CString::new(reader.bytes()?).map_err(|_| Malformed)?;
        let initialization = is_given.then_some(text);
        let mut hidden = Vec::new();
        for _file in 0..reader.count(LENGTH)? {
            hidden.push(PathBuf::from(OsStr::from_bytes(reader.bytes()?)));
        }
        let pin = Secret::new(reader.text()?.to_owned());
        reader.end()?;
        Ok(Self { module, selector, profile, initialization, hidden, pin })
    }
}

/// What the parent wants of a session. Each stands for a method of
/// [`Session`](crate::hsm::backend::Session), but for the first three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// Connect to the token; the session is the one that holds the login.
    Connect,
    /// Open a session of the connection.
    Open,
    /// Close the session.
    Close,
    Random(u32),
    Encrypt {
        key: ObjectHandle,
        iv: [u8; IV_LEN],
        aad: &'a [u8],
        plaintext: &'a [u8],
    },
    Decrypt {
        key: ObjectHandle,
        iv: &'a [u8],
        aad: &'a [u8],
        ciphertext: &'a [u8],
        tag: [u8; TAG_LEN],
    },
    Objects,
    ReadChangeable(ObjectHandle),
    ReadAttributes(ObjectHandle),
    MakeProbeKey,
    Sign {
        key: ObjectHandle,
        how: Signing,
        input: &'a [u8],
    },
}

impl<'a> Request<'a> {
    /// The C function that does most of it, for faults of calls that did not return.
    pub(super) fn function(&self) -> &'static str {
        match self {
            Self::Connect => "connection",
            Self::Open => "C_OpenSession",
            Self::Close => "C_CloseSession",
            Self::Random(_) => "C_GenerateRandom",
            Self::Encrypt { .. } => "C_Encrypt",
            Self::Decrypt { .. } => "C_Decrypt",
            Self::Objects => "C_FindObjects",
            Self::ReadChangeable(_) | Self::ReadAttributes(_) => "C_GetAttributeValue",
            Self::MakeProbeKey => "C_GenerateKey",
            Self::Sign { .. } => "C_Sign",
        }
    }

    /// How many times the limit of a call it may take. Connecting loads the library, and
    /// a search is as many calls as the token has keys, by the hundred.
    pub(super) fn patience(&self) -> u32 {
        match self {
            Self::Connect | Self::Objects => 6,
            _ => 1,
        }
    }

    pub(super) fn write(&self) -> Writer {
        let room = match self {
            Self::Encrypt { aad, plaintext, .. } => aad.len() + plaintext.len(),
            Self::Decrypt { iv, aad, ciphertext, .. } => iv.len() + aad.len() + ciphertext.len(),
            Self::Sign { input, .. } => input.len(),
            _ => 0,
        };
        let mut writer = Writer::with_room(FIXED + room);
        match self {
            Self::Connect => writer.u8(0),
            Self::Open => writer.u8(1),
            Self::Close => writer.u8(2),
            Self::Random(length) => {
                writer.u8(3);
                writer.u32(*length);
            }
            Self::Encrypt { key, iv, aad, plaintext } => {
                writer.u8(4);
                write_handle(&mut writer, *key);
                writer.array(iv);
                writer.bytes(aad);
                writer.bytes(plaintext);
            }
            Self::Decrypt { key, iv, aad, ciphertext, tag } => {
                writer.u8(5);
                write_handle(&mut writer, *key);
                writer.bytes(iv);
                writer.bytes(aad);
                writer.bytes(ciphertext);
                writer.array(tag);
            }
            Self::Objects => writer.u8(6),
            Self::ReadChangeable(object) => {
                writer.u8(7);
                write_handle(&mut writer, *object);
            }
            Self::ReadAttributes(object) => {
                writer.u8(8);
                write_handle(&mut writer, *object);
            }
            Self::MakeProbeKey => writer.u8(9),
            Self::Sign { key, how, input } => {
                writer.u8(10);
                write_handle(&mut writer, *key);
                writer.bytes(how.as_str().as_bytes());
                writer.bytes(input);
            }
        }
        writer
    }

    pub(super) fn read(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = content(frame);
        let request = match reader.u8()? {
            0 => Self::Connect,
            1 => Self::Open,
            2 => Self::Close,
            3 => Self::Random(reader.u32()?),
            4 => Self::Encrypt {
                key: read_handle(&mut reader)?,
                iv: reader.array()?,
                aad: reader.bytes()?,
                plaintext: reader.bytes()?,
            },
            5 => Self::Decrypt {
                key: read_handle(&mut reader)?,
                iv: reader.bytes()?,
                aad: reader.bytes()?,
                ciphertext: reader.bytes()?,
                tag: reader.array()?,
            },
            6 => Self::Objects,
            7 => Self::ReadChangeable(read_handle(&mut reader)?),
            8 => Self::ReadAttributes(read_handle(&mut reader)?),
            9 => Self::MakeProbeKey,
            10 => Self::Sign {
                key: read_handle(&mut reader)?,
                how: Signing::named(reader.text()?).ok_or(Malformed)?,
                input: reader.bytes()?,
            },
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(request)
    }
}

/// What a request gave.
#[derive(Debug, PartialEq)]
pub(super) enum Gift {
    /// Nothing but that it was done.
    Done,
    /// Whom the session is connected to.
    Identity(TokenIdentity),
    /// Random bytes.
    Random(Zeroizing<Vec<u8>>),
    Sealed(Sealed),
    Opened(Plaintext),
    Objects(Vec<ObjectHandle>),
    Changeable(ChangeableAttributes),
    Attributes(KeyAttributes),
    Object(ObjectHandle),
    Signature(Vec<u8>),
}

/// The answer to a request, and what was called on the way: by any session of the token since the
/// last answer of any, for metrics are kept per token.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) calls: Vec<HsmCall>,
    pub(super) result: Result<Gift, Fault>,
}

impl Answer {
    pub(super) fn write(&self) -> Writer {
        let room = match &self.result {
            Err(_) => FAULT_ROOM,
            Ok(Gift::Random(bytes)) => bytes.len(),
            Ok(Gift::Sealed(sealed)) => sealed.ciphertext.len(),
            Ok(Gift::Opened(plaintext)) => plaintext.len(),
            Ok(Gift::Objects(objects)) => objects.len() * 16,
            Ok(_) => 512,
        };
        let mut writer = Writer::with_room(FIXED + CALL * self.calls.len() + room);
        writer.count(self.calls.len());
        for HsmCall { function, took, code } in &self.calls {
            words::write_function(&mut writer, function);
            writer.u64(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            writer.u64(code.0);
        }
        match &self.result {
            Err(fault) => {
                writer.u8(0);
                words::write_fault(&mut writer, fault);
            }
            Ok(gift) => gift.write(&mut writer),
        }
        writer
    }

    pub(super) fn read(frame: &[u8], words: &Words) -> Result<Self, Malformed> {
        let mut reader = content(frame);
        let mut calls = Vec::with_capacity(reader.count(CALL)?);
        for _ in 0..calls.capacity() {
            let function = words::read_function(&mut reader)?;
            let took = Duration::from_nanos(reader.u64()?);
            calls.push(HsmCall { function, took, code: Code(reader.u64()?) });
        }
        let result = match reader.u8()? {
            0 => Err(words.fault(&mut reader)?),
            tag => Ok(Gift::read(tag, &mut reader)?),
        };
        reader.end()?;
        Ok(Self { calls, result })
    }
}

impl Gift {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Done => writer.u8(1),
            Self::Identity(TokenIdentity { manufacturer, model, serial }) => {
                writer.u8(2);
                for text in [manufacturer, model, serial] {
                    writer.bytes(text.as_bytes());
                }
            }
            Self::Random(bytes) => {
                writer.u8(3);
                writer.bytes(bytes);
            }
            Self::Sealed(Sealed { iv, ciphertext, tag }) => {
                writer.u8(4);
                writer.bytes(iv.as_bytes());
                writer.bytes(ciphertext);
                writer.array(tag);
            }
            Self::Opened(plaintext) => {
                writer.u8(5);
                writer.bytes(plaintext.expose());
            }
            Self::Objects(objects) => {
                writer.u8(6);
                writer.count(objects.len());
                objects.iter().for_each(|object| write_handle(writer, *object));
            }
            Self::Changeable(changeable) => {
                writer.u8(7);
                write_changeable(writer, changeable);
            }
            Self::Attributes(KeyAttributes { changeable, kind, usage, check_value }) => {
                writer.u8(8);
                write_changeable(writer, changeable);
                match kind {
                    KeyKind::Aes { bits } => {
                        writer.u8(0);
                        writer.u16(*bits);
                    }
                    KeyKind::Other(name) => {
                        writer.u8(1);
                        writer.bytes(name.as_bytes());
                    }
                }
                writer.bytes(check_value.as_ref().map_or(&[], |value| &value[..]));
                let Usage { encrypt, decrypt, sign, verify, wrap, unwrap, derive } = *usage;
                for may in [encrypt, decrypt, sign, verify, wrap, unwrap, derive] {
                    writer.flag(may);
                }
            }
            Self::Object(object) => {
                writer.u8(9);
                write_handle(writer, *object);
            }
            Self::Signature(signature) => {
                writer.u8(10);
                writer.bytes(signature);
            }
        }
    }

    fn read(tag: u8, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let text = |reader: &mut Reader<'_>| reader.text().map(str::to_owned);
        Ok(match tag {
            1 => Self::Done,
            2 => Self::Identity(TokenIdentity {
                manufacturer: text(reader)?,
                model: text(reader)?,
                serial: text(reader)?,
            }),
            3 => Self::Random(Zeroizing::new(reader.bytes()?.to_vec())),
            4 => Self::Sealed(Sealed {
                iv: Iv::try_from(reader.bytes()?).map_err(|_| Malformed)?,
                ciphertext: reader.bytes()?.to_vec(),
                tag: reader.array()?,
            }),
            5 => Self::Opened(Plaintext::new(reader.bytes()?.to_vec())),
            6 => {
                let count = reader.count(16)?;
                let objects = (0..count).map(|_| read_handle(reader));
                Self::Objects(objects.collect::<Result<_, _>>()?)
            }
            7 => Self::Changeable(read_changeable(reader)?),
            8 => {
                let changeable = read_changeable(reader)?;
                let kind = match reader.u8()? {
                    0 => KeyKind::Aes { bits: reader.u16()? },
                    1 => KeyKind::Other(text(reader)?),
                    _ => return Err(Malformed),
                };
                let check_value = match reader.bytes()? {
                    [] => None,
                    value => Some(value.try_into().map_err(|_| Malformed)?),
                };
                let usage = Usage {
                    encrypt: reader.flag()?,
                    decrypt: reader.flag()?,
                    sign: reader.flag()?,
                    verify: reader.flag()?,
                    wrap: reader.flag()?,
                    unwrap: reader.flag()?,
                    derive: reader.flag()?,
                };
                Self::Attributes(KeyAttributes { changeable, kind, usage, check_value })
            }
            9 => Self::Object(read_handle(reader)?),
            10 => Self::Signature(reader.bytes()?.to_vec()),
            _ => return Err(Malformed),
        })
    }
}

fn write_handle(writer: &mut Writer, handle: ObjectHandle) {
    writer.u64(handle.generation);
    writer.u64(handle.number);
}

fn read_handle(reader: &mut Reader<'_>) -> Result<ObjectHandle, Malformed> {
    Ok(ObjectHandle { generation: reader.u64()?, number: reader.u64()? })
}

fn write_changeable(writer: &mut Writer, changeable: &ChangeableAttributes) {
    let ChangeableAttributes { label, id, encrypt, decrypt } = changeable;
    writer.bytes(label);
    writer.bytes(id);
    writer.flag(*encrypt);
    writer.flag(*decrypt);
}

fn read_changeable(reader: &mut Reader<'_>) -> Result<ChangeableAttributes, Malformed> {
    Ok(ChangeableAttributes {
        label: reader.bytes()?.to_vec(),
        id: reader.bytes()?.to_vec(),
        encrypt: reader.flag()?,
        decrypt: reader.flag()?,
    })
}

#[cfg(test)]
mod tests {
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
        let sealed =
            Sealed { iv: Iv::Sixteen([1; 16]), ciphertext: vec![4; 5000], tag: [2; TAG_LEN] };
        let identity = TokenIdentity { model: "m".into(), ..TokenIdentity::default() };
        vec![
            Gift::Done,
            Gift::Identity(identity),
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
        let launch = Launch {
            program: "/xksd".into(),
            arguments: Vec::new(),
            environment: Default::default(),
        };
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
        let plaintext =
            Request::Encrypt { key: HANDLE, iv: [0; 12], aad: &large, plaintext: &large };
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
}
