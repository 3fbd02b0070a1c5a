//! `xksd keys` by transcript: what it does to tokens, and what it leaves when it is stopped half-way.

mod change;
mod destroy;
mod house;
mod show;
