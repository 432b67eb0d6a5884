//! RabbitMQ: a connection that reconnects by itself, the publisher and the consumer. Must not contain HTTP or SQL.

mod url;
mod callbacks;
mod connect;
mod link;
mod session;
mod pauses;
mod progress;
mod wire;
mod pace;
mod names;
mod topology;
mod subscription;
mod delivery;
pub mod consumer;
pub mod publisher;
mod confirm;
pub mod dead_letters;
mod desk;
mod death;
mod set_aside;
mod depth;

pub use consumer::{Consumer, Event};
pub use dead_letters::{DeadLetter, DeadLetters, DeadLettersError};
pub use death::Death;
pub use delivery::{Delivery, Disposition};
pub use depth::{DepthProbe, Depths};
pub use desk::{LetterDesk, LetterId, Settled, Verdict, Which};
pub use link::{Link, LinkWatch};
pub use names::{QueueNames, QueuePrefix};
pub use pace::Accepted;
pub use progress::{Progress, Standing};
pub use publisher::{PARTITION_CAPACITY_MIN, PublishError, Publisher};
pub use set_aside::{SetAside, SetAsideError, is_empty, set_aside};
pub use url::BrokerUrl;
pub use wire::MESSAGE_VERSION;
