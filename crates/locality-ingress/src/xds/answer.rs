//! Encodes a delta response without copying large resources: a route configuration of ten thousand
//! hosts has megabytes, and one copy per gateway would be hundreds.

use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::store::StoreRevision;
use super::{Encoded, ResourceKind, ResourceName};

/// Resources of at least this size are shared; copying a smaller one costs less than a frame of its
/// own.
const SHARED_FROM_BYTES: usize = 16 * 1024;

/// `DeltaDiscoveryResponse.resources`.
const RESOURCES: u8 = 2;
/// `Resource.resource`.
const RESOURCE: u8 = 2;
/// `Any.value`.
const VALUE: u8 = 2;

/// A `DeltaDiscoveryResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaResponse {
    /// The kind of its resources.
    pub kind: ResourceKind,
    /// The nonce that its ACK repeats.
    pub nonce: String,
    /// The revision of the store.
    pub revision: StoreRevision,
    /// New and changed resources.
    pub resources: Vec<(ResourceName, Encoded)>,
    /// Removed resources.
    pub removed: Vec<ResourceName>,
}

/// A response that exceeds the maximum of a gRPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to send an answer of {bytes} bytes: a message ends at 4 GiB")]
pub struct TooLong {
    /// Its length.
    pub bytes: usize,
}

impl DeltaResponse {
    /// The uncompressed gRPC message, in pieces.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn message(&self) -> Result<Vec<Bytes>, TooLong> {
        let mut pieces = Pieces::default();
        let head = DeltaDiscoveryResponse {
            system_version_info: self.revision.to_string(),
            type_url: self.kind.type_url().to_owned(),
            nonce: self.nonce.clone(),
            removed_resources: self.removed.iter().map(|name| name.as_str().to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        pieces.copied.put_slice(&head.encode_to_vec());
        for (name, encoded) in &self.resources {
            self.resource(name, encoded, &mut pieces);
        }
        pieces.framed()
    }

    // Protobuf fields may come in any order and in any number of pieces. So each resource is
    // encoded without its content, which follows under a header with its length.
    fn resource(&self, name: &ResourceName, encoded: &Encoded, to: &mut Pieces) {
        let content = &encoded.content;
        let any = Any { type_url: self.kind.type_url().to_owned(), value: Vec::new() }.encode_to_vec();
        let named = Resource { name: name.as_str().to_owned(), version: format!("{:x}", encoded.version), ..Resource::default() }
            .encode_to_vec();
        let any_length = any.len() + header_length(content.len()) + content.len();
        let length = named.len() + header_length(any_length) + any_length;
        to.header(RESOURCES, length);
        to.copied.put_slice(&named);
        to.header(RESOURCE, any_length);
        to.copied.put_slice(&any);
        to.header(VALUE, content.len());
        to.content(content);
    }
}

/// The length of the header of a length-delimited field; all fields used here have a one-byte tag.
fn header_length(length: usize) -> usize {
    1 + prost::length_delimiter_len(length)
}

#[derive(Debug, Default)]
struct Pieces {
    done: Vec<Bytes>,
    copied: BytesMut,
}

impl Pieces {
    fn header(&mut self, field: u8, length: usize) {
        const WITH_LENGTH: u8 = 2;
        self.copied.put_u8(field << 3 | WITH_LENGTH);
        // At most ten bytes; the buffer grows.
        let mut left = length;
        while left >= 0x80 {
            self.copied.put_u8(left.to_le_bytes()[0] | 0x80);
            left >>= 7;
        }
        self.copied.put_u8(left.to_le_bytes()[0]);
    }

    fn content(&mut self, content: &Bytes) {
        if content.len() < SHARED_FROM_BYTES {
            self.copied.put_slice(content);
            return;
        }
        self.done.push(self.copied.split().freeze());
        self.done.push(content.clone());
    }

    fn framed(mut self) -> Result<Vec<Bytes>, TooLong> {
        if !self.copied.is_empty() {
            self.done.push(self.copied.freeze());
        }
        let bytes = self.done.iter().map(Bytes::len).sum();
        let length = u32::try_from(bytes).map_err(|_| TooLong { bytes })?;
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(0);
        prefix.put_u32(length);
        self.done.insert(0, prefix.freeze());
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_protobuf_would_have_made_of_it() {
        let sizes = [0, 1, 127, 128, 16 * 1024 - 1, 16 * 1024, 300_000];
        let resources: Vec<_> =
            sizes.iter().map(|size| (ResourceName::new(format!("of-{size}")), Encoded::from(vec![7; *size]))).collect();
        let answer = DeltaResponse {
            kind: ResourceKind::Routes,
            nonce: "3".into(),
            revision: 9,
            resources: resources.clone(),
            removed: vec![ResourceName::new("gone")],
        };
        let pieces = answer.message().unwrap();
        // Large contents are the very same bytes.
        assert!(pieces.iter().any(|piece| piece.as_ptr() == resources[6].1.content.as_ptr()));
        let bytes = pieces.concat();
        assert_eq!(bytes[0], 0);
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()), u32::try_from(bytes.len() - 5).unwrap());
        let decoded = DeltaDiscoveryResponse::decode(&bytes[5..]).unwrap();
        let resource = |(name, encoded): &(ResourceName, Encoded)| Resource {
            name: name.as_str().into(),
            version: format!("{:x}", encoded.version),
            resource: Some(Any { type_url: ResourceKind::Routes.type_url().into(), value: encoded.content.to_vec() }),
            ..Resource::default()
        };
        let expected = DeltaDiscoveryResponse {
            system_version_info: "9".into(),
            resources: resources.iter().map(resource).collect(),
            type_url: ResourceKind::Routes.type_url().into(),
            removed_resources: vec!["gone".into()],
            nonce: "3".into(),
            ..DeltaDiscoveryResponse::default()
        };
        assert_eq!(decoded, expected);
    }
}
