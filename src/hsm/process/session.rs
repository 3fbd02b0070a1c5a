//! A session whose calls are made by the child.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::child::Child;
use super::frame;
use super::message::{Answer, Gift, Request};
use super::words::Words;
use crate::hsm::backend::{
    ChangeableAttributes, IV_LEN, ObjectHandle, Sealed, Session, Signing, TAG_LEN, TokenIdentity,
};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::key::KeyAttributes;
use crate::hsm::pkcs11::distrusted;
use crate::metrics::TokenMetrics;
use crate::secret::Plaintext;

/// Bits of a generation that the child counts; the parent's count of children stands above them,
/// so that generations grow over all children.
const CHILD_BITS: u32 = 32;

/// These bits.
const CHILD_MASK: u64 = (1 << CHILD_BITS) - 1;

/// A child, and what all sessions with it need.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) child: Arc<Child>,
    /// Which child this is; grows with each.
    pub(super) number: u64,
    pub(super) words: Arc<Words>,
    pub(super) metrics: Arc<TokenMetrics>,
    /// The token must not be used again, by any child.
    pub(super) distrusted: Arc<AtomicBool>,
    /// How long one call may take.
    pub(super) call_limit: Duration,
}

/// See the module. Closed when dropped.
pub(super) struct ProcessSession {
    line: Line,
    stream: UnixStream,
    /// The timeout that the stream has.
    timeout: Duration,
    /// The token makes its IVs.
    makes_ivs: bool,
    /// The child is gone.
    lost: bool,
}

impl ProcessSession {
    /// Connects to the token, or opens a session of the connection.
    pub(super) fn open(line: Line, request: &Request<'_>) -> Result<(Self, TokenIdentity), Fault> {
        let timeout = line.call_limit;
        let stream = line.child.session_socket().and_then(|stream| {
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        });
        let stream = stream.map_err(|error| lost(&line.child, request, &error))?;
        let mut session = Self { line, stream, timeout, makes_ivs: false, lost: false };
        match session.ask(request) {
            Ok(Gift::Identity(identity, makes_ivs)) => {
                session.makes_ivs = makes_ivs;
                Ok((session, identity))
            }
            Ok(_) => Err(session.misunderstood(request)),
            Err(fault) => {
                // There is nothing to be closed in the child.
                session.lost = true;
                Err(fault)
            }
        }
    }

    /// Has the child do something, within its limit.
    fn ask(&mut self, request: &Request<'_>) -> Result<Gift, Fault> {
        if self.lost {
            return Err(gone(request));
        }
        let answer = self.exchange(request).map_err(|error| {
            self.lost = true;
            lost(&self.line.child, request, &error)
        })?;
        for call in answer.calls {
            self.line.metrics.hsm_call(call.function, call.took, call.code);
        }
        if answer.result.as_ref().err() == Some(&distrusted()) {
            self.line.distrusted.store(true, Ordering::Release);
        }
        if let Err(Fault { kind: FaultKind::LibraryLost, .. }) = answer.result {
            // What mends a library that has lost its state is another process.
            self.line.child.kill("the library has lost its state");
        }
        answer.result
    }

    fn exchange(&mut self, request: &Request<'_>) -> io::Result<Answer> {
        let limit = self.line.call_limit * request.patience();
        if self.timeout != limit {
            self.stream.set_read_timeout(Some(limit))?;
            self.timeout = limit;
        }
        request.write().send(&self.stream)?;
        let frame = frame::receive(&self.stream, Some(limit))?;
        let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
        Answer::read(&frame, &self.line.words)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The child answered something else than what was asked for.
    fn misunderstood(&mut self, request: &Request<'_>) -> Fault {
        self.lost = true;
        self.line.child.kill("it answered something else than it was asked");
        gone(request)
    }

    /// A handle as the child knows it.
    fn to_child(&self, object: ObjectHandle) -> Result<ObjectHandle, Fault> {
        if object.generation >> CHILD_BITS == self.line.number {
            let generation = object.generation & CHILD_MASK;
            return Ok(ObjectHandle { generation, ..object });
        }
        let why = "the key was looked up in an earlier connection";
        Err(Fault::refused(FaultKind::HandleStale, "key handle", why))
    }

    /// A handle of the child's, as it is known here.
    fn to_parent(&self, object: ObjectHandle) -> ObjectHandle {
        let generation = self.line.number << CHILD_BITS | object.generation & CHILD_MASK;
        ObjectHandle { generation, ..object }
    }
}

impl Drop for ProcessSession {
    fn drop(&mut self) {
        if !self.lost {
            // Waits for it, so that whoever counts sessions counts right. The call has its limit.
            let _ = self.ask(&Request::Close);
        }
    }
}

impl Session for ProcessSession {
    fn random(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        let length = u32::try_from(buffer.len()).expect("nobody wants gigabytes");
        let request = Request::Random(length);
        match self.ask(&request)? {
            Gift::Random(bytes) if bytes.len() == buffer.len() => {
                buffer.copy_from_slice(&bytes);
                Ok(())
            }
            _ => Err(self.misunderstood(&request)),
        }
    }

    fn makes_ivs(&self) -> bool {
        self.makes_ivs
    }

    fn encrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8; IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, Fault> {
        let request = Request::Encrypt { key: self.to_child(key)?, iv: *iv, aad, plaintext };
        match self.ask(&request)? {
            Gift::Sealed(sealed) if sealed.ciphertext.len() == plaintext.len() => Ok(sealed),
            _ => Err(self.misunderstood(&request)),
        }
    }

    fn decrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<Plaintext, Fault> {
        let key = self.to_child(key)?;
        let request = Request::Decrypt { key, iv, aad, ciphertext, tag: *tag };
        match self.ask(&request)? {
            Gift::Opened(plaintext) if plaintext.len() == ciphertext.len() => Ok(plaintext),
            _ => Err(self.misunderstood(&request)),
        }
    }

    fn objects(&mut self) -> Result<Vec<ObjectHandle>, Fault> {
        match self.ask(&Request::Objects)? {
            Gift::Objects(objects) => {
                Ok(objects.into_iter().map(|object| self.to_parent(object)).collect())
            }
            _ => Err(self.misunderstood(&Request::Objects)),
        }
    }

    fn read_changeable(&mut self, object: ObjectHandle) -> Result<ChangeableAttributes, Fault> {
        let request = Request::ReadChangeable(self.to_child(object)?);
        match self.ask(&request)? {
            Gift::Changeable(changeable) => Ok(changeable),
            _ => Err(self.misunderstood(&request)),
        }
    }

    fn read_attributes(&mut self, object: ObjectHandle) -> Result<KeyAttributes, Fault> {
        let request = Request::ReadAttributes(self.to_child(object)?);
        match self.ask(&request)? {
            Gift::Attributes(attributes) => Ok(attributes),
            _ => Err(self.misunderstood(&request)),
        }
    }

    fn keys_were_read(&mut self) -> Result<(), Fault> {
        match self.ask(&Request::KeysWereRead)? {
            Gift::Done => Ok(()),
            _ => Err(self.misunderstood(&Request::KeysWereRead)),
        }
    }

    fn make_probe_key(&mut self) -> Result<ObjectHandle, Fault> {
        match self.ask(&Request::MakeProbeKey)? {
            Gift::Object(object) => Ok(self.to_parent(object)),
            _ => Err(self.misunderstood(&Request::MakeProbeKey)),
        }
    }

    fn sign(&mut self, key: ObjectHandle, how: Signing, input: &[u8]) -> Result<Vec<u8>, Fault> {
        let request = Request::Sign { key: self.to_child(key)?, how, input };
        match self.ask(&request)? {
            Gift::Signature(signature) if signature.len() == how.signature_len() => Ok(signature),
            _ => Err(self.misunderstood(&request)),
        }
    }
}

/// A call did not return, or its answer did not arrive: the child is ended.
fn lost(child: &Child, request: &Request<'_>, error: &io::Error) -> Fault {
    use io::ErrorKind::{InvalidData, TimedOut, WouldBlock};
    match error.kind() {
        TimedOut | WouldBlock => {
            child.kill("a call has not returned within its limit");
            let why = "it did not return within its limit";
            return Fault::refused(FaultKind::LibraryLost, request.function(), why);
        }
        InvalidData => child.kill("its answer cannot be understood"),
        _ => child.left(),
    }
    gone(request)
}

fn gone(request: &Request<'_>) -> Fault {
    let why = "the process of the HSM library is gone";
    Fault::refused(FaultKind::LibraryLost, request.function(), why)
}
