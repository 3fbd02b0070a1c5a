//! What is other than before, in words.

use std::collections::BTreeMap;

use crate::keystore::{Keystore, Keystores};
use crate::names::KeystoreName;

/// What differs between the key stores of two configurations.
pub(super) fn of_keystores(before: &Keystores, now: &Keystores) -> Vec<String> {
    let (before, now) = (by_name(before), by_name(now));
    let mut changes = Vec::new();
    for (name, keystore) in &now {
        match before.get(name) {
            None => changes.push(format!("key store {name}: added")),
            Some(earlier) if earlier == keystore => {}
            Some(earlier) => {
                let credentials = of_credentials(earlier, keystore);
                if credentials.is_empty() {
                    changes.push(format!("key store {name}: changed"));
                }
                changes.extend(credentials);
            }
        }
    }
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    changes.extend(gone.map(|name| format!("key store {name}: removed")));
    changes
}

fn of_credentials(before: &Keystore, now: &Keystore) -> Vec<String> {
    let (name, earlier, later) = (now.name(), before.credentials(), now.credentials());
    let added = later.access_key_ids().filter_map(|id| match earlier.secret(id) {
        None => Some(format!("key store {name}: credential {id} added")),
        Some(secret) if later.secret(id) != Some(secret) => {
            Some(format!("key store {name}: credential {id} has another secret"))
        }
        Some(_) => None,
    });
    let gone = earlier.access_key_ids().filter(|id| later.secret(id).is_none());
    added.chain(gone.map(|id| format!("key store {name}: credential {id} removed"))).collect()
}

fn by_name(keystores: &Keystores) -> BTreeMap<&KeystoreName, &Keystore> {
    keystores.iter().map(|keystore| (keystore.name(), &**keystore)).collect()
}
