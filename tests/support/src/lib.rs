//! The test harness of xksd.
