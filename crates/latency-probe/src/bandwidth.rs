//! `latency-probe once --bandwidth`: estimates the bandwidth to peers from short trains of packets.
//! Only on request, because trains take bandwidth from others: less than a megabyte to each peer,
//! in trains with pauses between them, one peer after the other.

mod estimate;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use latency_matrix::BandwidthRow;

use self::estimate::estimate;
use crate::net::train::TrainSender;
use crate::protocol::fleet_key::FleetKeys;

/// Trains to each peer: enough for an interval of 95 % that leaves out the extremes.
const TRAINS: u32 = 12;
/// Shortest pause between two trains. It is at least as long as the train took, too, so that trains
/// use at most half of the path.
const PAUSE: Duration = Duration::from_millis(100);

/// Measures one peer, blocking; none if it does not answer trains. `patience` is how long to
/// wait for the replies of one train.
///
/// # Errors
/// The system's error if packets cannot be sent.
pub(crate) fn measure(to: SocketAddr, keys: Option<&FleetKeys>, patience: Duration) -> io::Result<Option<BandwidthRow>> {
    let mut sender = TrainSender::open(to)?;
    let mut trains = Vec::new();
    for _ in 0..TRAINS {
        let begun = Instant::now();
        let train = sender.send(keys, patience)?;
        let is_silent = train.arrived.is_empty();
        trains.push(train);
        // Nobody is there, or it is a prober from before trains.
        if is_silent && estimate(&trains).is_none() {
            break;
        }
        std::thread::sleep(begun.elapsed().max(PAUSE).min(patience));
    }
    Ok(estimate(&trains))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::net::train::{TRAIN_PACKET_BYTES, TRAIN_PACKETS};
    use crate::net::{AnswerPolicy, Responder, ResponderCounters};

    #[test]
    fn a_peer_costs_less_than_a_megabyte() {
        assert_eq!(TRAINS * TRAIN_PACKETS * TRAIN_PACKET_BYTES, 983_040);
    }

    /// Signed trains to a responder that wants signatures; and what an unsigned one gets.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_loopback_device_is_at_least_so_fast_for_those_with_the_key() {
        let keys = FleetKeys::parse("the key of the fleet of this test", std::path::Path::new("key")).unwrap();
        let (_keys_out, keys_in) = watch::channel(Some(Arc::new(keys.clone())));
        let counters = Arc::new(ResponderCounters::default());
        let policy = AnswerPolicy { keys: keys_in, per_source_second: 0 };
        let responder = Responder::open(&["127.0.0.1:0".parse().unwrap()], policy, counters.clone()).unwrap();
        let (to, stop) = (responder.addresses()[0], CancellationToken::new());
        let answering = tokio::spawn(responder.run(stop.clone()));
        let of = async |keys: Option<FleetKeys>, patience| {
            tokio::task::spawn_blocking(move || measure(to, keys.as_ref(), patience).unwrap()).await.unwrap()
        };
        let found = of(Some(keys), Duration::from_secs(10)).await.unwrap();
        assert!(found.bits_per_second > 1e6 && found.bytes_sent == 983_040, "{found:?}");
        assert_eq!(of(None, Duration::from_millis(200)).await, None);
        assert_eq!(counters.read().into_iter().find(|(name, _)| *name == "unsigned"), Some(("unsigned", 64)));
        stop.cancel();
        answering.await.unwrap();
    }
}
