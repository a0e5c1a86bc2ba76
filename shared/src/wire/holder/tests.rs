//! Golden frames of the holder protocol, and the rejection of malformed ones.

use super::*;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to(message: &ToHolder, golden: &str) {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    assert_eq!(hex(&out), golden.replace(' ', ""), "{message:?}");
    assert_eq!(ToHolder::decode(&mut out).unwrap().as_ref(), Some(message));
    assert!(out.is_empty());
}

fn from(message: &FromHolder, golden: &str) {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    assert_eq!(hex(&out), golden.replace(' ', ""), "{message:?}");
    assert_eq!(FromHolder::decode(&mut out).unwrap().as_ref(), Some(message));
    assert!(out.is_empty());
}

fn size() -> TermSize {
    TermSize { cols: 0x78, rows: 0x28 }
}

fn hello(exit: Option<HolderExit>, writers: Vec<(u64, u64)>) -> FromHolder {
    FromHolder::Hello(Box::new(HolderHello {
        proto: 1,
        holder_pid: 2,
        child_pid: 3,
        epoch: 4,
        io: IoKind::Pty,
        recording: RecordingState::On,
        tail: 5,
        head: 6,
        start: 7,
        start_size: TermSize { cols: 80, rows: 24 },
        size: size(),
        exit,
        writers,
        input: InputState::default(),
    }))
}

/// These bytes are the promise to holders that already run. Never edit one; add.
#[test]
fn golden_bytes_towards_the_holder() {
    to(&ToHolder::Hello { proto: 1, from: 0x0102_0304_0506_0708 }, "0b000000 01 0100 0807060504030201");
    to(
        &ToHolder::Input { writer: 9, seq: 10, flags: 1, bytes: Bytes::from_static(b"y\r") },
        "14000000 02 0900000000000000 0a00000000000000 01 790d",
    );
    to(&ToHolder::Resize { size: size() }, "05000000 03 7800 2800");
    to(&ToHolder::Signal { signo: 15 }, "02000000 04 0f");
    to(&ToHolder::CloseInput, "01000000 05");
    to(&ToHolder::ExitAck, "01000000 06");
}

#[test]
fn golden_bytes_from_the_holder() {
    let exit = HolderExit { offset: 11, exit: Exit::Code { code: 7 }, at: UnixMs(12) };
    let exit_bytes = "0b00000000000000 00 07 0c00000000000000";
    let fixed = "0100 02000000 03000000 04000000 00 01 0500000000000000 0600000000000000 0700000000000000 5000 1800 7800 2800";
    from(&hello(None, vec![]), &format!("34000000 01 {fixed} 00 0000"));
    from(
        &hello(Some(exit), vec![(1, 2)]),
        &format!("56000000 01 {fixed} 01 {exit_bytes} 0100 0100000000000000 0200000000000000"),
    );
    from(
        &{
            let FromHolder::Hello(mut hello) = hello(None, vec![]) else { panic!() };
            hello.input.is_bracketed = true;
            hello.input.writers =
                vec![WriterState { writer: 9, queued: 10, has_more: false, is_bracketed: true }];
            FromHolder::Hello(hello)
        },
        &format!("48000000 01 {fixed} 00 0000 01 0100 0900000000000000 0a00000000000000 02"),
    );
    from(
        &FromHolder::Output { offset: 1, bytes: Bytes::from_static(b"\x1b[m") },
        "0c000000 02 0100000000000000 1b5b6d",
    );
    from(&FromHolder::InputAck { writer: 1, seq: 2 }, "11000000 03 0100000000000000 0200000000000000");
    for (reason, byte) in [
        (InputRefusal::Full, "01"),
        (InputRefusal::Gap, "02"),
        (InputRefusal::Ended, "03"),
        (InputRefusal::Other, "ff"),
    ] {
        from(
            &FromHolder::InputRefused { writer: 1, seq: 2, reason },
            &format!("12000000 04 0100000000000000 0200000000000000 {byte}"),
        );
    }
    from(&FromHolder::Resized { offset: 1, size: size() }, "0d000000 05 0100000000000000 7800 2800");
    from(&FromHolder::Exit(exit), &format!("13000000 06 {exit_bytes}"));
    let signal = HolderExit { exit: Exit::Signal { signal: 9 }, ..exit };
    from(&FromHolder::Exit(signal), "13000000 06 0b00000000000000 01 09 0c00000000000000");
    let lost = HolderExit { exit: Exit::Lost {}, ..exit };
    from(&FromHolder::Exit(lost), "13000000 06 0b00000000000000 02 00 0c00000000000000");
}

#[test]
fn every_malformed_class_is_refused() {
    let decode_to = |bytes: &[u8]| ToHolder::decode(&mut BytesMut::from(bytes));
    let decode_from = |bytes: &[u8]| FromHolder::decode(&mut BytesMut::from(bytes));
    for length in [0u32, 128 * 1024 + 1, u32::MAX] {
        let bytes = length.to_le_bytes();
        assert_eq!(decode_to(&bytes), Err(HolderWireError::Length(length)));
        assert_eq!(decode_from(&bytes), Err(HolderWireError::Length(length)));
    }
    for kind in [1u8, 2, 3, 4] {
        assert_eq!(decode_to(&[1, 0, 0, 0, kind]), Err(HolderWireError::Body(kind)), "kind {kind}");
    }
    for kind in [1u8, 2, 3, 4, 5, 6] {
        assert_eq!(decode_from(&[1, 0, 0, 0, kind]), Err(HolderWireError::Body(kind)), "kind {kind}");
    }
    let mut large = BytesMut::new();
    large.put_u32_le(1 + 17 + 64 * 1024 + 1);
    large.put_u8(2);
    large.put_bytes(0, 17 + 64 * 1024 + 1);
    assert_eq!(ToHolder::decode(&mut large), Err(HolderWireError::Body(2)));
}

#[test]
fn later_kinds_are_skipped_and_later_fields_ignored() {
    let mut bytes = BytesMut::from(&[2u8, 0, 0, 0, 200, 1][..]);
    bytes.extend_from_slice(&[4, 0, 0, 0, 4, 15, 99, 99]);
    assert_eq!(ToHolder::decode(&mut bytes), Ok(Some(ToHolder::Signal { signo: 15 })));
    let mut bytes = BytesMut::from(&[2u8, 0, 0, 0, 200, 1][..]);
    assert_eq!(FromHolder::decode(&mut bytes), Ok(None));
    assert!(bytes.is_empty());
}

proptest! {
    #[test]
    fn messages_survive_any_cut(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..20) {
        let messages = [
            FromHolder::Output { offset: 5, bytes: Bytes::from(bytes.clone()) },
            hello(None, vec![(1, 2), (3, 4)]),
            FromHolder::InputAck { writer: 1, seq: 2 },
        ];
        let mut wire = BytesMut::new();
        for message in &messages {
            message.encode(&mut wire);
        }
        let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(message) = FromHolder::decode(&mut buffer).unwrap() {
                seen.push(message);
            }
        }
        prop_assert_eq!(&seen[..], &messages[..]);
    }

    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = FromHolder::decode(&mut buffer) {}
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = ToHolder::decode(&mut buffer) {}
    }
}
