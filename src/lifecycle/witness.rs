//! A session of an administrator's, each change by which is told to an observer: the one place that all
//! changes of a token pass.

use std::rc::Rc;

use crate::hsm::backend::{
    Administration, ChangeableAttributes, IV_LEN, Labelled, Leaves, NewKey, ObjectHandle,
    Protection, Sealed, Session, Signing, TAG_LEN,
};
use crate::hsm::fault::Fault;
use crate::hsm::key::KeyAttributes;
use crate::hsm::state::KeyState;
use crate::hsm::transport::{
    Arrival, OaepHash, Officer, Pair, RsaPublicKey, Transport, pair_label,
};
use crate::names::TokenName;
use crate::secret::Plaintext;

/// Is told of changes.
pub trait Observer {
    /// Before a token is asked for a change.
    ///
    /// # Errors
    /// Why it must not be.
    fn before(&self) -> Result<(), Fault>;

    /// What was asked for, of which object, and what came of it.
    fn after(&self, token: &TokenName, change: &'static str, object: &str, done: Result<(), Fault>);

    /// The session is not needed any more.
    fn left(&self, token: &TokenName, session: Box<dyn Administration>);
}

/// A session all of whose changes are told to an observer.
pub fn watched(
    session: Box<dyn Administration>,
    token: TokenName,
    observer: Rc<dyn Observer>,
) -> Box<dyn Administration> {
    Box::new(Watched { session: Some(session), token, observer })
}

/// The security officer of a token, who is watched likewise.
pub fn watched_officer(
    officer: Box<dyn Officer>,
    token: TokenName,
    observer: Rc<dyn Observer>,
) -> Box<dyn Officer> {
    Box::new(WatchedOfficer { officer, token, observer })
}

struct WatchedOfficer {
    officer: Box<dyn Officer>,
    token: TokenName,
    observer: Rc<dyn Observer>,
}

impl Officer for WatchedOfficer {
    fn trust(&mut self, public: &RsaPublicKey) -> Result<bool, Fault> {
        self.observer.before()?;
        let done = self.officer.trust(public);
        let outcome = done.as_ref().map(|_| ()).map_err(|fault| *fault);
        self.observer.after(&self.token, "trust", &public.fingerprint(), outcome);
        done
    }
}

struct Watched {
    /// There until the end.
    session: Option<Box<dyn Administration>>,
    token: TokenName,
    observer: Rc<dyn Observer>,
}

impl Watched {
    fn session(&mut self) -> &mut dyn Administration {
        self.session.as_mut().expect("it leaves with the drop").as_mut()
    }

    fn change<T>(
        &mut self,
        change: &'static str,
        object: &str,
        act: impl FnOnce(&mut dyn Administration) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.observer.before()?;
        let done = act(self.session());
        let outcome = done.as_ref().map(|_| ()).map_err(|fault| *fault);
        self.observer.after(&self.token, change, object, outcome);
        done
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.observer.left(&self.token, session);
        }
    }
}

impl Session for Watched {
    fn random(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.session().random(buffer)
    }

    fn encrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8; IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, Fault> {
        self.session().encrypt(key, iv, aad, plaintext)
    }

    fn decrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<Plaintext, Fault> {
        self.session().decrypt(key, iv, aad, ciphertext, tag)
    }

    fn objects(&mut self) -> Result<Vec<ObjectHandle>, Fault> {
        self.session().objects()
    }

    fn read_changeable(&mut self, object: ObjectHandle) -> Result<ChangeableAttributes, Fault> {
        self.session().read_changeable(object)
    }

    fn read_attributes(&mut self, object: ObjectHandle) -> Result<KeyAttributes, Fault> {
        self.session().read_attributes(object)
    }

    fn make_probe_key(&mut self) -> Result<ObjectHandle, Fault> {
        self.session().make_probe_key()
    }

    fn sign(&mut self, key: ObjectHandle, how: Signing, input: &[u8]) -> Result<Vec<u8>, Fault> {
        self.session().sign(key, how, input)
    }
}

impl Administration for Watched {
    fn labelled(&mut self, label: &str) -> Result<Vec<Labelled>, Fault> {
        self.session().labelled(label)
    }

    fn read_protection(&mut self, object: ObjectHandle) -> Result<Protection, Fault> {
        self.session().read_protection(object)
    }

    fn generate(&mut self, new: &NewKey<'_>) -> Result<ObjectHandle, Fault> {
        let named = new.state.to_string();
        self.change("generate", &named, |session| session.generate(new))
    }

    fn write_state(&mut self, object: ObjectHandle, state: &KeyState) -> Result<(), Fault> {
        let named = state.to_string();
        self.change("write_state", &named, |session| session.write_state(object, state))
    }

    fn generate_signing_key(&mut self, label: &str, how: Signing) -> Result<(), Fault> {
        let make = |session: &mut dyn Administration| session.generate_signing_key(label, how);
        self.change("generate_signing_key", label, make)
    }

    fn public_points(&mut self, label: &str) -> Result<Vec<Vec<u8>>, Fault> {
        self.session().public_points(label)
    }

    fn destroy(&mut self, object: ObjectHandle) -> Result<(), Fault> {
        let id = self.session().read_changeable(object)?.id;
        let named = String::from_utf8_lossy(&id).into_owned();
        self.change("destroy", &named, |session| session.destroy(object))
    }
}

impl Transport for Watched {
    fn pairs(&mut self, leaves: Leaves) -> Result<Vec<Pair>, Fault> {
        self.session().pairs(leaves)
    }

    fn make_pair(&mut self, leaves: Leaves) -> Result<(), Fault> {
        self.change("make_pair", pair_label(leaves), |session| session.make_pair(leaves))
    }

    fn unwraps(&mut self, pair: &Pair, leaves: Leaves, hash: OaepHash) -> Result<bool, Fault> {
        self.session().unwraps(pair, leaves, hash)
    }

    fn generate_wrapped(
        &mut self,
        recipients: &[(&RsaPublicKey, OaepHash)],
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let under: Vec<_> = recipients.iter().map(|(public, _)| public.fingerprint()).collect();
        let wrap = |session: &mut dyn Administration| session.generate_wrapped(recipients);
        self.change("generate_wrapped", &under.join(" "), wrap)
    }

    fn receive(&mut self, arrival: &Arrival<'_>, new: &NewKey<'_>) -> Result<ObjectHandle, Fault> {
        let named = new.state.to_string();
        self.change("receive", &named, |session| session.receive(arrival, new))
    }

    fn trusted(&mut self, public: &RsaPublicKey) -> Result<Option<ObjectHandle>, Fault> {
        self.session().trusted(public)
    }

    /// It changes nothing, but key material leaves the token.
    fn wrap_under_trusted(
        &mut self,
        key: ObjectHandle,
        trusted: ObjectHandle,
        hash: OaepHash,
    ) -> Result<Vec<u8>, Fault> {
        let id = self.session().read_changeable(key)?.id;
        let named = String::from_utf8_lossy(&id).into_owned();
        let wrap =
            |session: &mut dyn Administration| session.wrap_under_trusted(key, trusted, hash);
        self.change("wrap_under_trusted", &named, wrap)
    }

    fn refuses_untrusted(
        &mut self,
        key: ObjectHandle,
        public: &RsaPublicKey,
        hash: OaepHash,
    ) -> Result<bool, Fault> {
        self.session().refuses_untrusted(key, public, hash)
    }
}
