//! What `systemctl status` shows: how far the daemon is, and what its tokens do.

use std::sync::Arc;
use std::time::Duration;

use super::notify::Notifier;
use crate::hsm::token::TokenState;
use crate::server::drain::{Draining, Phase};
use crate::server::serving::Serving;

/// How often it is looked at anew: people read it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the status current until the daemon leaves; from then on the one who leads it out does.
pub(super) async fn keep(notifier: Notifier, serving: Arc<Serving>, draining: Draining) {
    let mut said = String::new();
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let now = text(draining.phase(), &serving);
        if draining.phase() == Phase::Serving && now != said {
            notifier.status(&now).await;
            said = now;
        }
    }
}

/// The status in one line.
pub(super) fn text(phase: Phase, serving: &Serving) -> String {
    let now = serving.current();
    let tokens = now.groups.values().flat_map(|group| group.tokens());
    let mut states: Vec<_> = tokens.map(|token| (token.name().as_str(), token.state())).collect();
    states.sort_unstable_by_key(|(name, _)| *name);
    // Key stores may share a token.
    states.dedup_by_key(|(name, _)| *name);
    words(phase, states)
}

fn words(phase: Phase, tokens: Vec<(&str, TokenState)>) -> String {
    let phase = match phase {
        Phase::Serving => "serving",
        Phase::Leaving => "leaving, serving until load balancers have noticed",
        Phase::Closing => "leaving, answering what was asked",
    };
    let tokens = tokens.into_iter().map(|(name, state)| match state {
        TokenState::Probing => format!("{name} not connected to yet"),
        TokenState::Up => format!("{name} up"),
        TokenState::Suspect => format!("{name} suspect"),
        TokenState::Down(fault) => format!("{name} down ({fault})"),
        TokenState::PinRefused => format!("{name} not used, its PIN was refused"),
    });
    format!("{phase}; tokens: {}", tokens.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::fault::{Fault, FaultKind};

    #[test]
    fn every_token_is_named() {
        let fault = Fault::refused(FaultKind::TokenLost, "C_Login", "it is away");
        let tokens = vec![
            ("a", TokenState::Up),
            ("b", TokenState::Probing),
            ("c", TokenState::Suspect),
            ("d", TokenState::Down(fault)),
            ("e", TokenState::PinRefused),
        ];
        let expected = "serving; tokens: a up, b not connected to yet, c suspect, \
                        d down (C_Login: it is away), e not used, its PIN was refused";
        assert_eq!(words(Phase::Serving, tokens), expected);
        let leaving = words(Phase::Leaving, vec![("a", TokenState::Up)]);
        assert_eq!(leaving, "leaving, serving until load balancers have noticed; tokens: a up");
    }
}
