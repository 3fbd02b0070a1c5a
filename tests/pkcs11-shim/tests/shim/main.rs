//! The shim as its users have it: the built library between a client and SoftHSM2.

mod counting;
mod forwarding;
mod house;
mod scripting;
