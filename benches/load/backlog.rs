//! Puts a backlog on the queue with the bare AMQP client. Its rate is the broker's ceiling. Must not contain code of
//! the service's publisher.

use std::time::Instant;

use amqprs::{
    Ack, BasicProperties, Cancel, CloseChannel, DELIVERY_MODE_PERSISTENT, Nack, Return,
    callbacks::{ChannelCallback, DefaultConnectionCallback},
    channel::{BasicPublishArguments, Channel, ConfirmSelectArguments},
    connection::{Connection, OpenConnectionArguments},
    error::Error,
};
use async_trait::async_trait;
use fastrand::Rng;
use point_system::{domain::UserId, queue::QueueNames};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use crate::{
    scenes::MANY,
    traffic::{Users, per_second},
};

/// Publishes `deltas` of one point each, `of_message` in a message. Returns the rate of confirmed messages per second.
pub async fn publish(
    amqp_url: &str,
    names: &QueueNames,
    users: &Users,
    deltas: u64,
    of_message: usize,
) -> f64 {
    let mut rng = Rng::with_seed(1);
    let partitions = names.partitions();
    let mut of_partition = vec![Vec::new(); partitions.all().len()];
    for _ in 0..deltas {
        let user = UserId::new("user_id", &users.pick(&mut rng).to_string()).expect("positive");
        of_partition[usize::from(user.partition(partitions))].push(user);
    }
    let bodies = of_partition.into_iter().map(|users| users.chunks(of_message).map(body).collect());
    let bodies: Vec<Vec<String>> = bodies.collect();
    let messages: usize = bodies.iter().map(Vec::len).sum();

    let url = url::Url::parse(amqp_url).expect("a valid URL");
    let (host, port) = (url.host_str().expect("a host"), url.port().expect("a port"));
    let arguments = OpenConnectionArguments::new(host, port, "guest", "guest");
    let connection = Connection::open(&arguments).await.expect("a connection");
    connection.register_callback(DefaultConnectionCallback).await.expect("registered");
    let started = Instant::now();
    // In all partitions together, as many messages are unconfirmed as there are connections that each wait for a 202.
    let window = MANY / u64::from(partitions.count());
    let mut publishing = JoinSet::new();
    for (partition, bodies) in partitions.all().zip(bodies) {
        let (connection, queue) = (connection.clone(), names.partition(partition));
        publishing.spawn(async move { publish_to(&connection, &queue, bodies, window).await });
    }
    publishing.join_all().await;
    let time = started.elapsed();
    connection.close().await.expect("closed");
    per_second(u64::try_from(messages).expect("a count"), time)
}

fn body(users: &[UserId]) -> String {
    let deltas = users.iter().map(|user| {
        json!({"request_id": Uuid::now_v7(), "user_id": user.as_str(), "action": "add", "point": 1,
            "requested_at": "2026-11-01T00:00:00Z"})
    });
    json!({"version": 2, "deltas": deltas.collect::<Vec<_>>()}).to_string()
}

/// Publishes to one queue, with at most `window` unconfirmed messages.
async fn publish_to(connection: &Connection, queue: &str, bodies: Vec<String>, window: u64) {
    let channel = connection.open_channel(None).await.expect("a channel");
    let (safe_up_to, mut safe) = watch::channel(0);
    channel.register_callback(Confirms { safe_up_to }).await.expect("registered");
    channel.confirm_select(ConfirmSelectArguments::default()).await.expect("confirm mode");
    let properties = BasicProperties::default().with_delivery_mode(DELIVERY_MODE_PERSISTENT).finish();
    let mut tag = 0;
    for body in bodies {
        tag += 1;
        let arguments = BasicPublishArguments::new("", queue).mandatory(true).finish();
        channel.basic_publish(properties.clone(), body.into(), arguments).await.expect("published");
        safe.wait_for(|safe| tag < safe + window).await.expect("confirms");
    }
    safe.wait_for(|safe| *safe == tag).await.expect("confirms");
    channel.close().await.expect("closed");
}

/// Counts the confirms of a channel. It publishes to one queue, which confirms in the order of the tags.
struct Confirms {
    safe_up_to: watch::Sender<u64>,
}

#[async_trait]
impl ChannelCallback for Confirms {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), Error> {
        panic!("the broker closes a channel: {close}")
    }

    async fn cancel(&mut self, _: &Channel, cancel: Cancel) -> Result<(), Error> {
        panic!("the broker cancels a consumer: {}", cancel.consumer_tag())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.safe_up_to.send_replace(ack.delivery_tag());
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        panic!("the broker refuses a message: {}", nack.delivery_tag())
    }

    async fn publish_return(&mut self, _: &Channel, ret: Return, _: BasicProperties, _: Vec<u8>) {
        panic!("the broker returns a message: {}", ret.reply_text())
    }
}
