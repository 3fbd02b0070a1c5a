//! The HSM side, from the outside: backends by one contract, a token by what its threads do.

mod arrival;
mod audit;
mod blinking;
mod catalogue;
mod contract;
mod counts;
mod fleet;
mod isolation;
mod iv;
mod lifecycle;
mod limit;
mod messages;
mod proxy;
mod token;
mod writes;
