//! The HSM side, from the outside: backends by one contract, a token by what its threads do.

mod catalogue;
mod contract;
mod counts;
mod isolation;
mod iv;
mod token;
mod writes;
