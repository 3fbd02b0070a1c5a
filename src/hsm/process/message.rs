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
    KeysWereRead,
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
            Self::KeysWereRead => "session",
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
            Self::KeysWereRead => writer.u8(11),
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
            11 => Self::KeysWereRead,
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
    /// Whom the session is connected to, and whether the token makes its IVs.
    Identity(TokenIdentity, bool),
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
            Self::Identity(TokenIdentity { manufacturer, model, serial }, makes_ivs) => {
                writer.u8(2);
                for text in [manufacturer, model, serial] {
                    writer.bytes(text.as_bytes());
                }
                writer.flag(*makes_ivs);
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
            2 => {
                let [manufacturer, model, serial] = [text(reader)?, text(reader)?, text(reader)?];
                Self::Identity(TokenIdentity { manufacturer, model, serial }, reader.flag()?)
            }
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
mod tests;
