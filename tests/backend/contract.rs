//! One contract for all backends: in memory, SoftHSM2 by itself, behind the shim and in a process of
//! its own; kryoptic, also in a process of its own, and NSS softokn, each by its message functions and
//! without them.

use std::sync::Arc;

use cryptoki::object::Attribute;
use cryptoki::types::Date;
use support::child::{TokenAtHand, Way, with_token};
use support::contract;
use support::foreign::{ForeignTool, Material};
use support::memory::MemoryBackend;
use support::token::SoftHsmToken;
use xksd::catalogue::Reader;
use xksd::hsm::backend::Backend;
use xksd::hsm::fault::FaultKind;
use xksd::hsm::pkcs11::{Library, Pkcs11Backend, TokenSelector};
use xksd::hsm::profile;
use xksd::metrics::Metrics;
use xksd::secret::Secret;

use crate::isolation::isolated_backend;

/// The backend that leads to this token.
pub(crate) fn pkcs11_backend(token: &TokenAtHand) -> Pkcs11Backend {
    let library = Library::new(&token.module).with_initialization(token.initialization.clone());
    let library = Arc::new(library);
    let selector = TokenSelector::Label(token.label.clone());
    let metrics = Metrics::new().token(&"test".parse().expect("it is a token name"));
    Pkcs11Backend::new(library, selector, Secret::new(token.pin.to_owned()), metrics)
}

/// The same, of a profile that wants no more than PKCS#11 2.40.
fn two_calls_backend(token: &TokenAtHand) -> Pkcs11Backend {
    pkcs11_backend(token).with_profile(Some(&profile::GENERIC))
}

macro_rules! clauses {
    (@pkcs11 $name:ident, $backend:ident, $way:ident, $($clause:ident),+) => {
        mod $name {
            $(
                #[test]
                fn $clause() {
                    let test = concat!("contract::", stringify!($name), "::", stringify!($clause));
                    super::with_token(test, super::Way::$way, |token| {
                        let keys = super::ForeignTool::login_initializing(
                            &token.module,
                            &token.label,
                            token.pin,
                            token.initialization.as_deref(),
                        );
                        super::contract::$clause(&super::$backend(token), &keys);
                    });
                }
            )+
        }
    };
    ($($clause:ident),+ $(,)?) => {
        mod memory {
            $(
                #[test]
                fn $clause() {
                    let backend = super::MemoryBackend::new();
                    super::contract::$clause(&backend, &backend);
                }
            )+
        }
        clauses!(@pkcs11 softhsm, pkcs11_backend, Direct, $($clause),+);
        clauses!(@pkcs11 shim, pkcs11_backend, Shim, $($clause),+);
        clauses!(@pkcs11 kryoptic, pkcs11_backend, Kryoptic, $($clause),+);
        clauses!(@pkcs11 nss, pkcs11_backend, Nss, $($clause),+);
        clauses!(@pkcs11 isolated, isolated_backend, Direct, $($clause),+);
        // The same tokens by their message functions, and without them.
        clauses!(@pkcs11 kryoptic_two_calls, two_calls_backend, Kryoptic, $($clause),+);
        clauses!(@pkcs11 nss_two_calls, two_calls_backend, Nss, $($clause),+);
    };
}

clauses!(
    round_trips,
    known_answer,
    long_iv,
    bad_ciphertext,
    denied_usage,
    destroyed_object,
    earlier_connection,
    many_keys,
    objects,
    labels,
    twins,
    attributes,
    probe_key,
    random,
    threads,
    ecdsa,
    hmac,
);

// Of what another process has destroyed kryoptic says no more than CKR_GENERAL_ERROR.
clauses!(
    @pkcs11 isolated_kryoptic,
    isolated_backend,
    Kryoptic,
    round_trips,
    known_answer,
    long_iv,
    bad_ciphertext,
    denied_usage,
    earlier_connection,
    many_keys,
    probe_key,
    threads
);

/// An object that no tool of ours would make: SoftHSM2 has trouble with its dates.
#[test]
fn an_odd_object_hides_no_other() {
    with_token("contract::an_odd_object_hides_no_other", Way::Direct, |token| {
        let tool = ForeignTool::login(&token.module, &token.label, token.pin);
        for label in [&b"good"[..], b"odd"] {
            contract::Keys::add(
                &tool,
                label,
                label,
                Material::Aes(contract::VALUE),
                contract::BOTH,
            );
        }
        let date = || Date::new_from_str_slice("2026", "01", "31").expect("it is a date");
        tool.change(b"odd", &[Attribute::StartDate(date()), Attribute::EndDate(date())]);
        let backend = pkcs11_backend(token);
        let mut session = backend.connect().expect("the token is there");
        let mut reader = Reader::default();
        for _again in 0..2 {
            let catalogue = reader.read(session.as_mut()).expect("the token can be read");
            let good = "good".parse().expect("it is an external key id");
            assert!(catalogue.find(&good).is_some_and(|key| key.is_ok()));
            assert_eq!(catalogue.len() + catalogue.unread(), 2);
        }
    });
}

/// These take the question for an IV for the IV. No profile that asks may ever be used with them.
fn is_not_admitted(test: &str, way: Way, own: &'static profile::Profile) {
    with_token(test, way, |token| {
        for profile in profile::ALL.into_iter().filter(|profile| profile.iv_source.is_token()) {
            let backend = pkcs11_backend(token).with_profile(Some(profile));
            let fault = backend.connect().err().expect("it proves nothing");
            // Not because of a PIN or a session.
            assert!(fault.function.starts_with("C_Encrypt"), "{profile}: {fault}");
            assert!(backend.connect().is_err(), "{profile}: nor the second time");
        }
        assert!(pkcs11_backend(token).with_profile(Some(own)).connect().is_ok());
        assert!(pkcs11_backend(token).connect().is_ok(), "recognised");
    });
}

#[test]
fn softhsm_is_not_admitted_as_a_token_that_makes_ivs() {
    let test = "contract::softhsm_is_not_admitted_as_a_token_that_makes_ivs";
    is_not_admitted(test, Way::Direct, &profile::SOFTHSM2);
}

#[test]
fn kryoptic_is_not_admitted_as_a_token_that_makes_ivs() {
    let test = "contract::kryoptic_is_not_admitted_as_a_token_that_makes_ivs";
    is_not_admitted(test, Way::Kryoptic, &profile::KRYOPTIC);
}

#[test]
fn nss_is_not_admitted_as_a_token_that_makes_ivs() {
    let test = "contract::nss_is_not_admitted_as_a_token_that_makes_ivs";
    is_not_admitted(test, Way::Nss, &profile::NSS);
}

/// These prove that their message functions do what they say: without that they would be as slow as the
/// others, and nobody would notice.
fn sends_messages(test: &str, way: Way) {
    with_token(test, way, |token| {
        let backend = pkcs11_backend(token);
        let session = backend.connect().expect("the token is there");
        assert!(session.makes_ivs());
        assert!(backend.open_session().expect("the token has room").makes_ivs());
        let session = two_calls_backend(token).connect().expect("the token is there");
        assert!(!session.makes_ivs());
    });
}

#[test]
fn kryoptic_sends_messages_in_a_process_of_its_own() {
    let test = "contract::kryoptic_sends_messages_in_a_process_of_its_own";
    with_token(test, Way::Kryoptic, |token| {
        let backend = isolated_backend(token);
        assert!(backend.connect().expect("the token is there").makes_ivs());
        assert!(backend.open_session().expect("the token has room").makes_ivs());
    });
}

#[test]
fn kryoptic_sends_messages() {
    sends_messages("contract::kryoptic_sends_messages", Way::Kryoptic);
}

#[test]
fn nss_sends_messages() {
    sends_messages("contract::nss_sends_messages", Way::Nss);
}

/// Which of two tokens is meant must not depend on the order in which the module lists them.
#[test]
fn two_tokens_of_one_label_are_refused() {
    with_token("contract::two_tokens_of_one_label_are_refused", Way::Direct, |token| {
        let conf = std::env::var_os("SOFTHSM2_CONF").expect("it is set in the child");
        let directory = std::path::Path::new(&conf).parent().expect("it is in a directory");
        let twin = SoftHsmToken::create(directory, &token.label);
        assert_eq!(twin.label, token.label);
        let fault = pkcs11_backend(token).connect().err().expect("nothing says which one");
        assert_eq!(fault.kind, FaultKind::TokenLost);
        assert!(fault.to_string().contains("serial"), "{fault}");
        let refused = pkcs11_backend(token).administer().err().expect("nor for who would write");
        assert_eq!(refused, fault);
    });
}

/// A library that somebody has finalised is initialised again, and what was before it is dead.
#[test]
fn a_library_that_lost_its_state_is_initialised_again() {
    let test = "contract::a_library_that_lost_its_state_is_initialised_again";
    with_token(test, Way::Shim, |token| {
        let tool = ForeignTool::login(&token.module, &token.label, token.pin);
        contract::Keys::add(&tool, b"key", b"", Material::Aes(contract::VALUE), contract::BOTH);
        let backend = pkcs11_backend(token);
        let mut old = backend.connect().expect("the token is there");
        let key = old.objects().expect("the token can be searched")[0];
        // No call is in flight.
        let context = cryptoki::context::Pkcs11::new(&token.module).expect("it is loaded");
        context.finalize().expect("it was initialised");
        let lost = old.random(&mut [0; 12]).expect_err("there is no session any more");
        assert_eq!(lost.kind, FaultKind::LibraryLost);
        let mut new = backend.connect().expect("the library can be initialised again");
        let stale = new.encrypt(key, &[1; 12], b"", b"text").expect_err("it is an old handle");
        assert_eq!(stale.kind, FaultKind::HandleStale);
        let closed = token.counts().of("C_CloseSession");
        // Its number may be that of a new session by now.
        drop(old);
        assert_eq!(token.counts().of("C_CloseSession"), closed);
        let key = new.objects().expect("the token can be searched")[0];
        assert!(new.encrypt(key, &[1; 12], b"", b"text").is_ok());
    });
}
