//! The background jobs of worker nodes. Must not contain SQL, HTTP or AMQP.

mod expiry;

pub use expiry::expire;
