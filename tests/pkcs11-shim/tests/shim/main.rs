//! The shim as its users have it: the built library between a client and SoftHSM2.

mod counting;
mod faults;
mod forwarding;
mod gcm;
mod house;
mod lies;
mod scripting;
mod selecting;
mod settings;
mod vendors;
