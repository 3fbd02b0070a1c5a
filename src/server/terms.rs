//! What connections are accepted by, which may change while they are open.
//!
//! A connection keeps its time limits to the end. Whom TLS lets in does not stay so: a client that
//! would not be let in any more has what it has asked answered and is told to leave.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::listener::{Limits, Transport};

/// What connections are accepted by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What runs over TCP: looked at when a handshake begins.
    pub transport: Transport,
    /// How a connection is treated: looked at when it is accepted.
    pub limits: Arc<Limits>,
}

/// The terms of now.
pub type CurrentTerms = watch::Receiver<Arc<Terms>>;

/// Whether the client of a connection is still let in.
#[derive(Debug)]
pub(super) struct Admission {
    /// Where the terms are learnt that came after those of the handshake.
    terms: Mutex<CurrentTerms>,
    /// What the client has shown.
    certificates: Vec<CertificateDer<'static>>,
    /// It is not, and will not be again.
    is_barred: AtomicBool,
}

impl Admission {
    /// Of a client that has shown these certificates, in a handshake by the terms that `terms` has
    /// seen last.
    pub(super) fn new(terms: CurrentTerms, certificates: Vec<CertificateDer<'static>>) -> Self {
        Self { terms: Mutex::new(terms), certificates, is_barred: AtomicBool::new(false) }
    }

    /// Whether the client would be let in now. Looked at for each request.
    pub(super) fn holds(&self) -> bool {
        let mut terms = self.terms();
        // An error means that the daemon has let go of the terms: they do not change any more.
        if terms.has_changed().unwrap_or(false) {
            let now = terms.borrow_and_update().clone();
            if let Transport::Tls(tls) = &now.transport
                && !tls.admits(&self.certificates)
            {
                self.is_barred.store(true, Ordering::Release);
            }
        }
        !self.is_barred.load(Ordering::Acquire)
    }

    /// Waits until the client is let in no more.
    pub(super) async fn ended(&self) {
        let mut terms = self.terms().clone();
        while self.holds() {
            if terms.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    fn terms(&self) -> MutexGuard<'_, CurrentTerms> {
        self.terms.lock().expect("nothing panics while holding this lock")
    }
}
