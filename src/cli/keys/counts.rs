//! What `describe` says of encryptions counted against the limit of a version.

use serde_json::{Value, json};

use super::super::failure::say;
use crate::config::Config;
use crate::counts::ledger::{Counted, Ledger, TokenSet};
use crate::counts::limit::{MOST, Share};
use crate::counts::store::read;
use crate::lifecycle::Held;
use crate::names::{ExternalKeyId, TokenName};

/// The counts of the daemon with this configuration, as it has last written them.
pub(super) struct Reading {
    ledger: Ledger,
    share: Share,
    tokens: TokenSet,
}

impl Reading {
    /// Reads them, if they can be; else says why not, unless there is no place for them.
    pub(super) fn of(config: &Config, tokens: &[TokenName]) -> Option<Self> {
        let directory = config.state_directory.as_ref()?;
        // Keys of one token are counted with those of all that it stands with.
        let stands = |group: &&Vec<TokenName>| tokens.iter().any(|token| group.contains(token));
        let group = config.keystores.iter().map(|keystore| &keystore.tokens).find(stands);
        let tokens = group.map_or(tokens, Vec::as_slice);
        let why = match read(directory) {
            Ok(Some(Ok(ledger))) => {
                let (share, tokens) = (Share::of(config.fleet_size), TokenSet::new(tokens));
                return Some(Self { ledger, share, tokens });
            }
            Ok(Some(Err(error))) => error.to_string(),
            Ok(None) => "there are none yet".to_owned(),
            Err(error) => error.to_string(),
        };
        say(&format!(
            "warning: the encryption counts in {} cannot be read: {why}",
            directory.display()
        ));
        None
    }

    fn reserved(&self, key: &ExternalKeyId, held: &Held) -> u64 {
        let counted = Counted::new(key, held.object_id, &self.tokens);
        match self.ledger.reserved.get(&counted) {
            Some(reserved) => *reserved,
            // What is not counted yet of what is lost counts as the whole.
            None if self.ledger.lost.contains(&self.tokens) => self.share.encryptions(),
            None => 0,
        }
    }

    pub(super) fn in_json(&self, key: &ExternalKeyId, held: &Held) -> Value {
        json!({
            "reserved": self.reserved(key, held),
            "share": self.share.encryptions(),
            "limit": MOST,
        })
    }

    pub(super) fn in_text(&self, key: &ExternalKeyId, held: &Held) -> String {
        let (reserved, share) = (self.reserved(key, held), self.share.encryptions());
        // Rounded up: what is counted never looks like nothing.
        let percent = (u128::from(reserved) * 100).div_ceil(u128::from(share));
        format!("  encryptions here: at most {reserved} of {share} ({percent}%)\n")
    }
}
