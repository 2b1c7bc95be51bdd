//! Decompresses a body with Brotli, piece by piece: a stream of messages has no end to wait for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame};

/// The maximum size of a decompressed piece.
const PIECE_BYTES: usize = 16 * 1024;

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// A decompressed body.
pub(super) struct Unbrotli<B> {
    body: B,
    input: Bytes,
    state: Box<State>,
    is_over: bool,
}

/// Why decompression failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnbrotliError<E> {
    /// The compressed body failed.
    #[error("failed to read a compressed body")]
    Body(#[source] E),
    /// The body is not valid Brotli.
    #[error("failed to decompress a body")]
    Malformed,
}

impl<B> Unbrotli<B> {
    pub(super) fn new(body: B) -> Self {
        let alloc = StandardAlloc::default;
        // Strict: no windows above 16 MiB.
        let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
        Self { body, input: Bytes::new(), state, is_over: false }
    }

    /// The next decompressed piece; `None` if more input is needed.
    fn piece(&mut self) -> Result<Option<Bytes>, ()> {
        let mut output = vec![0; PIECE_BYTES];
        let (mut taken, mut given, mut total) = (0, 0, 0);
        let (mut input_left, mut output_left) = (self.input.len(), output.len());
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut taken,
            &self.input,
            &mut output_left,
            &mut given,
            &mut output,
            &mut total,
            &mut self.state,
        );
        self.input.advance(taken);
        match result {
            BrotliResult::ResultFailure => return Err(()),
            BrotliResult::ResultSuccess => self.is_over = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        output.truncate(given);
        Ok((given > 0).then(|| output.into()))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Unbrotli<B> {
    type Data = Bytes;
    type Error = UnbrotliError<B::Error>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if self.is_over {
                return Poll::Ready(None);
            }
            // The decompressor may have more output than fitted into the last piece, although all
            // input was consumed.
            match self.piece() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(()) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(UnbrotliError::Malformed)));
                }
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.input.is_empty() => self.input = data,
                    // Not all earlier input was consumed yet.
                    Ok(data) => self.input = [std::mem::take(&mut self.input), data].concat().into(),
                    Err(_) => return Poll::Ready(None),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(UnbrotliError::Body(error)))),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write as _;

    use futures::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    /// A body of what is sent, and what comes out of it.
    fn body() -> (mpsc::Sender<Bytes>, Unbrotli<impl Body<Data = Bytes, Error = Infallible> + Unpin>) {
        let (sender, receiver) = mpsc::channel(64);
        let frames = ReceiverStream::new(receiver).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        (sender, Unbrotli::new(StreamBody::new(frames)))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    async fn read(body: &mut Unbrotli<impl Body<Data = Bytes, Error = Infallible> + Unpin>, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        all
    }

    #[tokio::test]
    async fn each_message_comes_out_before_the_next_is_in_and_what_repeats_costs_nothing() {
        let (sender, mut body) = body();
        let mut compressor = brotli::CompressorWriter::new(Vec::new(), 4096, 2, 18);
        let mut sent = Vec::new();
        // What a gateway says of itself in every report, hard to compress.
        let mut random = 1_u64;
        let node: Vec<u8> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random.to_be_bytes()[0]
        })
        .take(60_000)
        .collect();
        for number in 0..5_u8 {
            let message = [&node[..], &[number; 3]].concat();
            compressor.write_all(&message).unwrap();
            compressor.flush().unwrap();
            let bytes = std::mem::take(compressor.get_mut());
            sent.push(bytes.len());
            sender.send(bytes.into()).await.unwrap();
            assert_eq!(read(&mut body, message.len()).await, message);
        }
        assert!(sent[4] < 200, "{sent:?}");
        drop(sender);
        assert!(body.frame().await.is_none());
    }

    proptest! {
        #[test]
        fn hostile_bodies_end(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10)) {
            block_on(async {
                let (sender, mut body) = body();
                for piece in pieces {
                    sender.send(piece.into()).await.unwrap();
                }
                drop(sender);
                while let Some(Ok(_)) = body.frame().await {}
            });
        }
    }
}
