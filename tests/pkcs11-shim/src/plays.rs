//! Scripts that come with the shim; each plays one vendor's module.

/// By name.
const PLAYS: &[(&str, &str)] = &[
    ("cloudhsm", include_str!("plays/cloudhsm")),
    ("cloudhsm-busy", include_str!("plays/cloudhsm-busy")),
    ("luna", include_str!("plays/luna")),
    ("luna-fips", include_str!("plays/luna-fips")),
    ("nshield", include_str!("plays/nshield")),
];

/// The script of this name.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    PLAYS.iter().find(|(known, _)| *known == name).map(|(_, script)| *script)
}

/// The names of all.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PLAYS.iter().map(|(name, _)| *name)
}
