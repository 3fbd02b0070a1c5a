//! The server: from a TCP connection to an answer.
//!
//! [`listener`] accepts connections and guards them against strangers, [`http`] reads requests,
//! [`pipeline`] is the path of a request in one function, [`rescue`] turns every error of the
//! layers below into one of the protocol's, [`record`] writes down what happened, `spans` as a trace.
//! [`serving`] holds what requests are served by. [`ops_listener`] serves health checks and metrics,
//! [`control`] an administrator of this machine. [`pulse`] tells whether a listener is alive.

pub mod activity;
pub mod connections;
pub mod control;
pub mod drain;
pub mod http;
pub mod listener;
pub mod ops_listener;
pub mod pipeline;
pub mod proxy_header;
pub mod pulse;
pub mod record;
pub mod reload;
pub mod rescue;
pub mod serving;
mod spans;
pub mod terms;
