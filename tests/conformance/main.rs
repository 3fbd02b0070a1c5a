//! `xksd conformance` examined itself: a sound proxy passes, each fault of a broken one is found
//! by the name of its case, and the command says so. The daemon is examined in `tests/protocol`.
//! `xksd bench`, which calls any proxy as well, calls the sound one.

mod bench;
mod broken;
mod command;
mod faults;
mod message;
mod proxy;
