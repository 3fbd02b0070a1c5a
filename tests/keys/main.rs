//! `xksd keys` by transcript: what it does to tokens, and what it leaves when it is stopped half-way.

mod change;
mod crash;
mod destroy;
mod freeze;
mod house;
mod import;
mod race;
mod replicable;
mod replicate;
mod rotate;
mod show;
mod verify;
