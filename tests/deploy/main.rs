//! What lies below `deploy`, as its users run it.

mod helm;
