//! The queues of one test, through the bare client. Must not contain our own code for queues.

use amqprs::{
    BasicProperties, FieldTable, FieldValue,
    callbacks::DefaultChannelCallback,
    channel::{
        BasicGetArguments, BasicPublishArguments, BasicRejectArguments, Channel, ConfirmSelectArguments,
        QueueDeclareArguments, QueueDeleteArguments,
    },
    connection::{Connection, OpenConnectionArguments},
};
use point_system::{domain::UserId, queue::QueueNames};
use serde_json::json;

use crate::support::system::PARTITIONS;

pub struct Queues {
    names: QueueNames,
    connection: Connection,
    channel: Channel,
}

impl Queues {
    pub async fn connect(amqp_url: &str, names: QueueNames) -> Self {
        let url = url::Url::parse(amqp_url).expect("a valid URL");
        let (host, port) = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
        let (user, password) = (url.username(), url.password().unwrap_or("guest"));
        let arguments = OpenConnectionArguments::new(host, port, user, password);
        let connection = Connection::open(&arguments).await.expect("a connection");
        let channel = connection.open_channel(None).await.expect("a channel");
        channel.register_callback(DefaultChannelCallback).await.expect("registered");
        channel.confirm_select(ConfirmSelectArguments::default()).await.expect("confirm mode");
        Self { names, connection, channel }
    }

    /// Returns the server's version, and ends the connection.
    pub async fn server_version(self) -> String {
        let version = self.connection.server_properties().version().to_owned();
        self.connection.close().await.expect("closed");
        version
    }

    pub async fn publish(&self, partition: u16, body: &str) {
        self.publish_to(&self.names.partition(partition), body).await;
    }

    /// Puts a message into the dead letters that was never in a partition.
    pub async fn publish_dead(&self, body: &str) {
        self.publish_to(&self.names.dead_letters(), body).await;
    }

    /// Dead-letters a message from a queue that is not ours, and removes the queue. `name` follows our prefix.
    pub async fn die_in(&self, name: &str, body: &str) {
        let dead_letters = self.names.dead_letters();
        let queue = format!("{}.{name}", dead_letters.trim_end_matches(".dead-letters"));
        let mut arguments = FieldTable::new();
        for (key, value) in [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", &*dead_letters)] {
            arguments.insert(key.try_into().expect("a short name"), value.into());
        }
        let declaration = QueueDeclareArguments::new(&queue).arguments(arguments).finish();
        self.channel.queue_declare(declaration).await.expect("declared");
        self.publish_to(&queue, body).await;
        let (deliver, ..) = loop {
            if let Some(got) =
                self.channel.basic_get(BasicGetArguments::new(&queue)).await.expect("an answer")
            {
                break got;
            }
        };
        let reject = BasicRejectArguments::new(deliver.delivery_tag(), false);
        self.channel.basic_reject(reject).await.expect("rejected");
        self.delete_queue(&queue).await;
    }

    async fn publish_to(&self, queue: &str, body: &str) {
        let arguments = BasicPublishArguments::new("", queue);
        self.channel
            .basic_publish(BasicProperties::default(), body.into(), arguments)
            .await
            .expect("published");
    }

    /// The number of waiting messages in the partitions.
    pub async fn waiting(&self) -> u32 {
        let mut sum = 0;
        for partition in self.names.partitions().all() {
            sum += self.length(&self.names.partition(partition)).await;
        }
        sum
    }

    /// The number of dead letters.
    pub async fn dead(&self) -> u32 {
        self.length(&self.names.dead_letters()).await
    }

    async fn length(&self, queue: &str) -> u32 {
        let passive = QueueDeclareArguments::new(queue).passive(true).finish();
        self.channel.queue_declare(passive).await.expect("declared").expect("an answer").1
    }

    /// The first dead letter, which stays in its queue.
    pub async fn dead_letter(&self) -> String {
        let message = self.channel.basic_get(BasicGetArguments::new(&self.names.dead_letters())).await;
        let (_, _, body) = message.expect("an answer").expect("a message");
        String::from_utf8(body).expect("text")
    }

    /// Deletes the queues of the partitions with their messages.
    pub async fn delete_partitions(&self) {
        for partition in self.names.partitions().all() {
            self.delete_partition(partition).await;
        }
    }

    /// Deletes the queue of a partition with its messages.
    pub async fn delete_partition(&self, partition: u16) {
        self.delete_queue(&self.names.partition(partition)).await;
    }

    /// Declares the queue of a partition as the service does.
    pub async fn declare_partition(&self, partition: u16) {
        let max_bytes = (4_i64 << 30) / i64::from(self.names.partitions().count());
        let mut arguments = FieldTable::new();
        for (name, value) in [
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", FieldValue::l(2_000_000_000)),
            ("x-single-active-consumer", true.into()),
            ("x-dead-letter-exchange", "".into()),
            ("x-dead-letter-routing-key", self.names.dead_letters().into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-overflow", "reject-publish".into()),
            ("x-max-length-bytes", FieldValue::l(max_bytes)),
        ] {
            arguments.insert(name.try_into().expect("a short name"), value);
        }
        let mut queue = QueueDeclareArguments::durable_client_named(&self.names.partition(partition));
        self.channel.queue_declare(queue.arguments(arguments).finish()).await.expect("declared");
    }

    /// Declares the queue of a partition as the service never would.
    pub async fn declare_foreign(&self, partition: u16) {
        let queue = QueueDeclareArguments::durable_client_named(&self.names.partition(partition));
        self.channel.queue_declare(queue).await.expect("declared");
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
    json!({"version": 2, "deltas": [{
        "request_id": request_id, "user_id": user_id.to_string(), "action": "add", "point": point,
        "requested_at": "2026-11-01T00:00:00Z",
    }]})
    .to_string()
}

/// The partition of a user in an installation with the usual number of partitions.
pub fn partition(user_id: i64) -> u16 {
    UserId::new("user_id", &user_id.to_string()).expect("positive").partition(PARTITIONS)
}
