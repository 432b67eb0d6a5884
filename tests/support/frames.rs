//! Reads AMQP 0-9-1 frames on their way to a client, and drops or repeats some. Must not contain our own AMQP code, or a client's.

/// What happens to the frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tampering {
    /// Deliveries are dropped.
    NoDeliveries,
    /// The answers to the close of channels that have had a delivery are dropped.
    NoCloses,
    /// Confirms, positive and negative, are dropped.
    NoConfirms,
    /// The answers to subscriptions come twice, as when the leader of a queue stops.
    SubscribedTwice,
}

/// The frames of one connection, which arrive in pieces.
pub struct Frames {
    tampering: Tampering,
    /// The channels that have had a delivery.
    delivered: Vec<[u8; 2]>,
    /// The beginning of an unfinished frame.
    rest: Vec<u8>,
    /// The channel whose delivery is being dropped: its content follows the method.
    swallowed: Option<[u8; 2]>,
}

impl Frames {
    pub fn new(tampering: Tampering) -> Self {
        Self { tampering, delivered: Vec::new(), rest: Vec::new(), swallowed: None }
    }

    /// Adds a piece and returns the whole frames so far, without those that are dropped.
    pub fn passed(&mut self, piece: &[u8]) -> Vec<u8> {
        const METHOD: u8 = 1;
        const CONTENT: [u8; 2] = [2, 3];
        const BASIC_CONSUME_OK: [u8; 4] = [0, 60, 0, 21];
        const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];
        const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];
        const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
        const BASIC_NACK: [u8; 4] = [0, 60, 0, 120];
        // A frame begins with its type, channel and size, and ends with one byte (§4.2.3).
        const OVERHEAD: usize = 8;
        self.rest.extend_from_slice(piece);
        let mut passed = Vec::new();
        while let Some(size) = self.rest.get(3..7) {
            let size: [u8; 4] = size.try_into().expect("four bytes");
            let length = OVERHEAD + usize::try_from(u32::from_be_bytes(size)).expect("a size");
            if self.rest.len() < length {
                break;
            }
            let frame: Vec<u8> = self.rest.drain(..length).collect();
            let channel = [frame[1], frame[2]];
            if frame[0] == METHOD {
                let is_delivery = frame[7..].starts_with(&BASIC_DELIVER);
                self.delivered.extend(is_delivery.then_some(channel));
                let is_lost = match self.tampering {
                    Tampering::NoDeliveries => is_delivery,
                    Tampering::NoConfirms => {
                        frame[7..].starts_with(&BASIC_ACK) || frame[7..].starts_with(&BASIC_NACK)
                    }
                    Tampering::NoCloses => {
                        frame[7..].starts_with(&CHANNEL_CLOSE_OK) && self.delivered.contains(&channel)
                    }
                    Tampering::SubscribedTwice => {
                        if frame[7..].starts_with(&BASIC_CONSUME_OK) {
                            passed.extend_from_slice(&frame);
                        }
                        false
                    }
                };
                self.swallowed = is_lost.then_some(channel);
            }
            let is_swallowed =
                self.swallowed == Some(channel) && (frame[0] == METHOD || CONTENT.contains(&frame[0]));
            if !is_swallowed {
                passed.extend(frame);
            }
        }
        passed
    }
}

#[test]
fn only_what_is_to_be_changed_is_changed_wherever_the_pieces_break() {
    let frame = |kind: u8, channel: u8, payload: &[u8]| {
        let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
        [&[kind, 0, channel][..], &size, payload, &[0xce]].concat()
    };
    let (consume_ok, heartbeat) = (frame(1, 1, &[0, 60, 0, 21, 0]), frame(8, 0, &[]));
    let (get_ok, its_content) = (frame(1, 2, &[0, 60, 0, 71]), frame(3, 2, b"kept"));
    let delivery = [frame(1, 1, &[0, 60, 0, 60, 9]), frame(2, 1, b"head"), frame(3, 1, b"body")].concat();
    let (closed, other_closed) = (frame(1, 1, &[0, 20, 0, 41]), frame(1, 2, &[0, 20, 0, 41]));
    let (ack, nack) = (frame(1, 2, &[0, 60, 0, 80, 1]), frame(1, 2, &[0, 60, 0, 120, 1]));
    let sent = [
        &consume_ok[..],
        &delivery,
        &heartbeat,
        &get_ok,
        &its_content,
        &ack,
        &nack,
        &closed,
        &other_closed,
        &delivery,
    ];
    let without = |lost: &[&[u8]]| {
        let kept: Vec<&[u8]> = sent.iter().copied().filter(|frame| !lost.contains(frame)).collect();
        kept.concat()
    };
    let twice = [&sent[..1], &sent[..]].concat().concat();
    for (tampering, kept) in [
        (Tampering::NoDeliveries, without(&[&delivery])),
        (Tampering::NoCloses, without(&[&closed])),
        (Tampering::NoConfirms, without(&[&ack, &nack])),
        (Tampering::SubscribedTwice, twice),
    ] {
        for piece in 1..sent.concat().len() {
            let mut frames = Frames::new(tampering);
            let passed: Vec<u8> =
                sent.concat().chunks(piece).flat_map(|piece| frames.passed(piece)).collect();
            assert_eq!(passed, kept, "{tampering:?}, in pieces of {piece} bytes");
        }
    }
}
