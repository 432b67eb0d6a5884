//! Reads AMQP 0-9-1 frames on their way to a client, and drops deliveries. Must not contain our own code, or a
//! client's.

/// The frames of one connection, which arrive in pieces.
#[derive(Default)]
pub struct Frames {
    /// The beginning of an unfinished frame.
    rest: Vec<u8>,
    /// The channel whose delivery is being dropped: its content follows the method.
    swallowed: Option<[u8; 2]>,
}

impl Frames {
    /// Adds a piece and returns the whole frames so far, without deliveries.
    pub fn without_deliveries(&mut self, piece: &[u8]) -> Vec<u8> {
        const METHOD: u8 = 1;
        const CONTENT: [u8; 2] = [2, 3];
        const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];
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
                self.swallowed = frame[7..].starts_with(&BASIC_DELIVER).then_some(channel);
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
fn only_deliveries_are_swallowed_wherever_the_pieces_break() {
    let frame = |kind: u8, channel: u8, payload: &[u8]| {
        let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
        [&[kind, 0, channel][..], &size, payload, &[0xce]].concat()
    };
    let (consume_ok, heartbeat) = (frame(1, 1, &[0, 60, 0, 21, 0]), frame(8, 0, &[]));
    let (get_ok, its_content) = (frame(1, 2, &[0, 60, 0, 71]), frame(3, 2, b"kept"));
    let delivery = [frame(1, 1, &[0, 60, 0, 60, 9]), frame(2, 1, b"head"), frame(3, 1, b"body")].concat();
    let sent = [&consume_ok[..], &delivery, &heartbeat, &get_ok, &its_content, &delivery].concat();
    let kept = [&consume_ok[..], &heartbeat, &get_ok, &its_content].concat();
    for piece in 1..sent.len() {
        let mut frames = Frames::default();
        let passed: Vec<u8> = sent.chunks(piece).flat_map(|piece| frames.without_deliveries(piece)).collect();
        assert_eq!(passed, kept, "in pieces of {piece} bytes");
    }
}
