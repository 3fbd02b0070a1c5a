//! A token in memory: what PKCS#11 promises, what modules do instead, and nothing to install.
//!
//! [`MemoryBackend`] is a [`Backend`] whose keys a test adds, changes and destroys while it runs,
//! and whose next calls a test makes fail, hang or lie ([`MemoryBackend::next`]). Faults are named
//! by C function, as on a real token: `C_Login` and `C_OpenSession` are in connecting,
//! `C_OpenSession` in opening a session, `C_EncryptInit` then `C_Encrypt` in encrypting, and so on.

mod session;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use xksd::hsm::backend::{Backend, ObjectHandle, Session, TokenIdentity};
use xksd::hsm::codes::Code;
use xksd::hsm::fault::Fault;
use xksd::hsm::key::{KeyKind, Usage};

use self::session::MemorySession;
use crate::gate::Gate;

/// A key in a [`MemoryBackend`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryKey {
    /// `CKA_LABEL`
    pub label: Vec<u8>,
    /// `CKA_ID`
    pub id: Vec<u8>,
    /// Kind and length.
    pub kind: KeyKind,
    /// What it may be used for.
    pub usage: Usage,
    /// Its value, which is used if `kind` is AES-256 or a generic secret.
    pub value: [u8; 32],
    /// The pair, in PKCS#8, if `kind` is EC.
    pub pair: Option<Vec<u8>>,
    /// `CKA_CHECK_VALUE`, whatever the value is.
    pub check_value: Option<[u8; 3]>,
    /// What C_GetAttributeValue returns for it; `None`: its attributes.
    pub unreadable: Option<Code>,
}

impl MemoryKey {
    /// An AES-256 key of random bytes that may encrypt and decrypt, with an empty `CKA_ID`.
    pub fn aes_256(label: impl AsRef<[u8]>) -> Self {
        let mut value = [0; 32];
        fill(&mut value);
        Self {
            label: label.as_ref().to_vec(),
            id: Vec::new(),
            kind: KeyKind::Aes { bits: 256 },
            usage: Usage { encrypt: true, decrypt: true, ..Usage::default() },
            value,
            pair: None,
            check_value: None,
            unreadable: None,
        }
    }
}

/// Names a key of a [`MemoryBackend`] for as long as the backend lives, whatever its handle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRef(u64);

/// What a call does instead of its work, or to its result.
#[derive(Debug, Clone)]
pub enum Act {
    /// Returns this code.
    Return(Code),
    /// Waits at this gate, then goes on as if nothing had been.
    Hang(Gate),
    /// Waits at this gate, then returns this code.
    HangThenReturn(Gate, Code),
    /// C_Encrypt: a bit of the ciphertext is wrong. C_Decrypt: a bit of the plaintext is.
    FlipBit,
    /// C_Encrypt: a bit of the tag is wrong.
    FlipTagBit,
    /// C_GenerateRandom: the same bytes as always when it does this, no two of them alike.
    StandStill,
    /// C_GenerateRandom: succeeds and writes nothing.
    WriteNothing,
    /// Panics.
    Panic,
}

/// A token in memory; clones are the same token.
#[derive(Clone, Default)]
pub struct MemoryBackend(Arc<Mutex<State>>);

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryBackend")
    }
}

#[derive(Default)]
struct State {
    /// By `CK_OBJECT_HANDLE`.
    objects: BTreeMap<u64, Object>,
    refs: u64,
    sessions: u64,
    generation: u64,
    bad_tag: Option<Code>,
    calls: HashMap<&'static str, u64>,
    next: HashMap<&'static str, VecDeque<Act>>,
    always: HashMap<&'static str, Act>,
}

struct Object {
    key: MemoryKey,
    name: KeyRef,
    /// A session object goes with this session.
    session: Option<u64>,
}

impl State {
    /// Adds an object under the lowest free number, so that a destroyed one's is given out again.
    fn add(&mut self, key: MemoryKey, session: Option<u64>) -> (u64, KeyRef) {
        self.refs += 1;
        let name = KeyRef(self.refs);
        let number = (1..).find(|n| !self.objects.contains_key(n)).expect("numbers do not end");
        self.objects.insert(number, Object { key, name, session });
        (number, name)
    }

    fn number(&self, name: KeyRef) -> Option<u64> {
        self.objects.iter().find(|(_, object)| object.name == name).map(|(number, _)| *number)
    }

    /// What a library does that starts anew: sessions and their objects are gone, and the numbers
    /// of the others belong to different ones.
    fn forget_numbers(&mut self) {
        let mut objects: VecDeque<Object> =
            std::mem::take(&mut self.objects).into_values().collect();
        objects.retain(|object| object.session.is_none());
        if !objects.is_empty() {
            objects.rotate_left(1);
        }
        self.objects = (1..).zip(objects).collect();
    }
}

impl MemoryBackend {
    /// A token without keys, which refuses a wrong tag with `CKR_ENCRYPTED_DATA_INVALID`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key.
    pub fn add(&self, key: MemoryKey) -> KeyRef {
        self.state().add(key, None).1
    }

    /// Changes a key, as an administrator may.
    ///
    /// # Panics
    /// Where there is no such key any more.
    pub fn change(&self, key: KeyRef, change: impl FnOnce(&mut MemoryKey)) {
        let mut state = self.state();
        let number = state.number(key).expect("the key is there");
        change(&mut state.objects.get_mut(&number).expect("it was found").key);
    }

    /// Destroys a key. The next one that is added gets its number.
    ///
    /// # Panics
    /// Where there is no such key any more.
    pub fn destroy(&self, key: KeyRef) {
        let mut state = self.state();
        let number = state.number(key).expect("the key is there");
        state.objects.remove(&number);
    }

    /// The key's handle in the connection that is in use.
    ///
    /// # Panics
    /// Where there is no such key any more.
    pub fn handle(&self, key: KeyRef) -> ObjectHandle {
        let state = self.state();
        let number = state.number(key).expect("the key is there");
        ObjectHandle { generation: state.generation, number }
    }

    /// A key of this label, the oldest if there are several.
    pub fn find(&self, label: &[u8]) -> Option<KeyRef> {
        let state = self.state();
        let named = state.objects.values().filter(|object| object.key.label == label);
        named.map(|object| object.name).min_by_key(|name| name.0)
    }

    /// What C_Decrypt returns for a tag that does not fit from now on (SoftHSM2:
    /// `CKR_GENERAL_ERROR`).
    pub fn set_bad_tag(&self, code: Code) {
        self.state().bad_tag = Some(code);
    }

    /// Has the next call of this function do something else. Several are done one after another.
    pub fn next(&self, function: &'static str, act: Act) {
        self.state().next.entry(function).or_default().push_back(act);
    }

    /// Has the next call of this function hang. The gate tells when it does, and lets it go on.
    pub fn hang(&self, function: &'static str) -> Gate {
        let gate = Gate::closed();
        self.next(function, Act::Hang(gate.clone()));
        gate
    }

    /// Has every further call of this function do something else; `None` ends that.
    pub fn always(&self, function: &'static str, act: Option<Act>) {
        let mut state = self.state();
        match act {
            Some(act) => drop(state.always.insert(function, act)),
            None => drop(state.always.remove(function)),
        }
    }

    /// How often this function was called, by whomever.
    pub fn calls(&self, function: &str) -> u64 {
        self.state().calls.get(function).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while holding this lock")
    }

    /// Counts a call and does what is asked of it; gives what is to be done to its result.
    fn enter(&self, function: &'static str) -> Result<Option<Act>, Fault> {
        let act = {
            let mut state = self.state();
            *state.calls.entry(function).or_default() += 1;
            let next = state.next.get_mut(function).and_then(VecDeque::pop_front);
            next.or_else(|| state.always.get(function).cloned())
        };
        match act {
            Some(Act::Return(code)) => Err(Fault::returned(function, code)),
            Some(Act::Panic) => panic!("asked for by the test"),
            Some(Act::Hang(gate)) => {
                gate.pass();
                Ok(None)
            }
            Some(Act::HangThenReturn(gate, code)) => {
                gate.pass();
                Err(Fault::returned(function, code))
            }
            act => Ok(act),
        }
    }
}

impl Backend for MemoryBackend {
    fn connect(&self) -> Result<Box<dyn Session>, Fault> {
        {
            let mut state = self.state();
            state.generation += 1;
            state.forget_numbers();
        }
        let session = self.open_session()?;
        self.enter("C_Login")?;
        Ok(session)
    }

    fn open_session(&self) -> Result<Box<dyn Session>, Fault> {
        self.enter("C_OpenSession")?;
        let mut state = self.state();
        state.sessions += 1;
        let (number, generation) = (state.sessions, state.generation);
        Ok(Box::new(MemorySession { token: self.clone(), number, generation }))
    }

    fn identity(&self) -> TokenIdentity {
        TokenIdentity { manufacturer: "xksd".into(), model: "memory".into(), serial: "0".into() }
    }
}

fn fill(buffer: &mut [u8]) {
    aws_lc_rs::rand::fill(buffer).expect("the operating system gives random bytes");
}
