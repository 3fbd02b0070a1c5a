//! The child's side: makes the calls that the parent asks for.

use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use zeroize::Zeroizing;

use super::frame;
use super::hidden::{Hiding, hide};
use super::message::{Answer, Gift, Hello, Request};
use crate::hsm::backend::{Backend, Session};
use crate::hsm::fault::Fault;
use crate::hsm::pkcs11::{Library, Pkcs11Backend};
use crate::metrics::TokenMetrics;

/// Most random bytes that are asked for at once.
const RANDOM_MAX: u32 = 1 << 16;

/// Serves a parent until it leaves: learns from it which library and token to use, then serves
/// each session that it opens on a thread of its own.
///
/// Threads may be inside the library when this returns: the process must then end without exit
/// handlers, see [`exit_now`](crate::hsm::pkcs11::exit_now).
///
/// # Errors
/// If the parent says nothing that can be understood, or the socket fails.
pub fn host(control: &UnixStream) -> io::Result<()> {
    let hello = frame::receive_exactly(control)?.ok_or(ErrorKind::UnexpectedEof)?;
    let hello_read = Hello::read(&hello).map_err(malformed)?;
    let Hello { module, selector, profile, initialization, hidden, pin } = hello_read;
    drop(hello);
    // Before the first line of the library's code runs, and before there are other threads.
    match hide(&hidden) {
        Ok(Hiding::Done) => tracing::debug!(files = hidden.len(), "hidden from the HSM library"),
        Ok(Hiding::Unsupported) => tracing::info!(
            "this system has no Landlock: the HSM library can read what the daemon's user can"
        ),
        Err(error) => tracing::warn!(
            %error, "Landlock fails: the HSM library can read what the daemon's user can"
        ),
    }
    let notes = Arc::new(TokenMetrics::noting());
    let library = Arc::new(Library::new(module).with_initialization(initialization));
    let backend = Pkcs11Backend::new(library, selector, pin, notes.clone());
    let backend = Arc::new(backend.with_profile(profile));
    while let Some(stream) = next_session(control)? {
        let (backend, notes) = (backend.clone(), notes.clone());
        // The socket is closed when the thread ends, and the parent notices.
        let serve = move || serve_session(&stream, backend.as_ref(), &notes);
        std::thread::Builder::new().name("session".to_owned()).spawn(serve)?;
    }
    Ok(())
}

/// Waits for the socket of the next session; `None` where the parent has left.
fn next_session(control: &UnixStream) -> io::Result<Option<UnixStream>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let received = match recvmsg(control, &mut buffers, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        for message in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(descriptor) = descriptors.next()
            {
                return Ok(Some(descriptor.into()));
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
    }
}

/// Serves one session until it is closed, its socket ends, or the parent is not understood.
fn serve_session(stream: &UnixStream, backend: &dyn Backend, notes: &TokenMetrics) {
    let mut session: Option<Box<dyn Session>> = None;
    while let Ok(Some(frame)) = frame::receive(stream, None) {
        let Ok(request) = Request::read(&frame) else { return };
        let result = match (&mut session, request) {
            (None, Request::Connect) => {
                backend.connect().map(|new| begin(&mut session, new, backend))
            }
            (None, Request::Open) => {
                backend.open_session().map(|new| begin(&mut session, new, backend))
            }
            (Some(_), Request::Close) => {
                session = None;
                Ok(Gift::Done)
            }
            (Some(session), request) => perform(session.as_mut(), request),
            (None, _) => return,
        };
        let answer = Answer { calls: notes.take_notes(), result };
        if answer.write().send(stream).is_err() {
            return;
        }
    }
}

fn begin(
    session: &mut Option<Box<dyn Session>>,
    new: Box<dyn Session>,
    backend: &dyn Backend,
) -> Gift {
    let makes_ivs = new.makes_ivs();
    *session = Some(new);
    Gift::Identity(backend.identity(), makes_ivs)
}

fn perform(session: &mut dyn Session, request: Request<'_>) -> Result<Gift, Fault> {
    match request {
        Request::Random(length) => {
            let length = length.min(RANDOM_MAX) as usize;
            let mut bytes = Zeroizing::new(vec![0; length]);
            session.random(&mut bytes).map(|()| Gift::Random(bytes))
        }
        Request::Encrypt { key, iv, aad, plaintext } => {
            session.encrypt(key, &iv, aad, plaintext).map(Gift::Sealed)
        }
        Request::Decrypt { key, iv, aad, ciphertext, tag } => {
            session.decrypt(key, iv, aad, ciphertext, &tag).map(Gift::Opened)
        }
        Request::Objects => session.objects().map(Gift::Objects),
        Request::ReadChangeable(object) => session.read_changeable(object).map(Gift::Changeable),
        Request::ReadAttributes(object) => session.read_attributes(object).map(Gift::Attributes),
        Request::MakeProbeKey => session.make_probe_key().map(Gift::Object),
        Request::KeysWereRead => session.keys_were_read().map(|()| Gift::Done),
        Request::Sign { key, how, input } => session.sign(key, how, input).map(Gift::Signature),
        Request::Connect | Request::Open | Request::Close => Ok(Gift::Done),
    }
}

fn malformed(error: frame::Malformed) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
