//! What callers notice when the HSM fails, hangs or lies: the real daemon under steady load.
//!
//! Each scenario is a function that takes a [`world::Scale`], asserts what must hold at any scale,
//! and gives a row of figures. The short forms are ordinary tests. The long ones are run, all of
//! them, by `make soak`, which prints the rows as the table in `docs/reliability.md`.

mod automatic;
mod chaos;
mod codes;
mod credentials;
mod figures;
mod fleet;
mod library;
mod network;
mod pin;
mod quotas;
mod reload;
mod restart;
mod rotation;
mod soak;
mod world;
mod writes;
