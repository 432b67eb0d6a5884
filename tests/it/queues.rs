//! The queues of one test, seen from outside: with the bare client, not with our own code.

use amqprs::{
    BasicProperties,
    callbacks::DefaultChannelCallback,
    channel::{
        BasicGetArguments, BasicPublishArguments, Channel, ConfirmSelectArguments, QueueDeclareArguments,
        QueueDeleteArguments,
    },
    connection::{Connection, OpenConnectionArguments},
};
use point_system::{
    domain::{PARTITIONS, UserId},
    queue::QueueNames,
};
use serde_json::json;

pub struct Queues {
    names: QueueNames,
    connection: Connection,
    channel: Channel,
}

impl Queues {
    pub async fn connect(amqp_url: &str, prefix: &str) -> Self {
        let url = url::Url::parse(amqp_url).expect("a valid URL");
        let (host, port) = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
        let (user, password) = (url.username(), url.password().unwrap_or("guest"));
        let arguments = OpenConnectionArguments::new(host, port, user, password);
        let connection = Connection::open(&arguments).await.expect("a connection");
        let channel = connection.open_channel(None).await.expect("a channel");
        channel.register_callback(DefaultChannelCallback).await.expect("registered");
        channel.confirm_select(ConfirmSelectArguments::default()).await.expect("confirm mode");
        Self { names: QueueNames::new(prefix).expect("a valid name"), connection, channel }
    }

    pub fn server_version(&self) -> String {
        self.connection.server_properties().version().to_owned()
    }

    pub async fn publish(&self, partition: u16, body: &str) {
        self.publish_to(&self.names.partition(partition), body).await;
    }

    /// Puts a message into the dead letters that never was in a partition.
    pub async fn publish_dead(&self, body: &str) {
        self.publish_to(&self.names.dead_letters(), body).await;
    }

    async fn publish_to(&self, queue: &str, body: &str) {
        let arguments = BasicPublishArguments::new("", queue);
        self.channel
            .basic_publish(BasicProperties::default(), body.into(), arguments)
            .await
            .expect("published");
    }

    /// The messages that wait in the partitions.
    pub async fn waiting(&self) -> u32 {
        let mut sum = 0;
        for partition in 0..PARTITIONS {
            sum += self.length(&self.names.partition(partition)).await;
        }
        sum
    }

    /// The messages that wait in the dead letters.
    pub async fn dead(&self) -> u32 {
        self.length(&self.names.dead_letters()).await
    }

    async fn length(&self, queue: &str) -> u32 {
        let passive = QueueDeclareArguments::new(queue).passive(true).finish();
        self.channel.queue_declare(passive).await.expect("declared").expect("an answer").1
    }

    /// The first of the dead letters, which stays there.
    pub async fn dead_letter(&self) -> String {
        let message = self.channel.basic_get(BasicGetArguments::new(&self.names.dead_letters())).await;
        let (_, _, body) = message.expect("an answer").expect("a message");
        String::from_utf8(body).expect("text")
    }

    /// Deletes the queues of the partitions, with what is in them.
    pub async fn delete_partitions(&self) {
        for partition in 0..PARTITIONS {
            self.delete_queue(&self.names.partition(partition)).await;
        }
    }

    async fn delete_queue(&self, queue: &str) {
        self.channel.queue_delete(QueueDeleteArguments::new(queue)).await.expect("deleted");
    }

    pub async fn delete(self) {
        self.delete_partitions().await;
        self.delete_queue(&self.names.dead_letters()).await;
        self.channel.close().await.expect("closed");
        self.connection.close().await.expect("closed");
    }
}

/// The message of one delta.
pub fn message(request_id: &str, user_id: i64, point: i64) -> String {
    json!({"version": 1, "deltas": [{
        "request_id": request_id, "user_id": user_id, "action": "add", "point": point,
        "requested_at": "2026-11-01T00:00:00Z",
    }]})
    .to_string()
}

/// The partition of a user.
pub fn partition(user_id: i64) -> u16 {
    UserId::new("user_id", user_id).expect("positive").partition()
}
