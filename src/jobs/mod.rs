//! What the clock starts on worker nodes. Must not contain SQL, HTTP or AMQP.

mod expiry;

pub use expiry::expire;
