//! Frames by hand: what the client library is too polite for.

use bytes::{Bytes, BytesMut};
use callboard::protocol::frame::{Attachment, Frame, FrameCodec, decode_reply, encode_request};
use callboard::protocol::messages::{Hello, Metadata, Request};
use callboard::types::{CorrelationId, TopicId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::codec::{Decoder, Encoder};

use crate::Result;

/// The receive buffer of a client that reads slowly: with a large one the kernel would read for it.
const SMALL_BUFFER: u32 = 4 << 10;

pub struct Wire {
    pub socket: TcpStream,
    codec: FrameCodec,
    received: BytesMut,
    next_id: u32,
}

impl Wire {
    /// Connects and says `Hello`.
    pub async fn open(address: &str) -> Result<Self> {
        Self::greet(TcpStream::connect(address).await?).await
    }

    /// Likewise, with hardly any room for replies in the kernel.
    pub async fn open_narrow(address: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
        Self::greet(socket.connect(address.parse()?).await?).await
    }

    async fn greet(socket: TcpStream) -> Result<Self> {
        socket.set_nodelay(true)?;
        let codec = FrameCodec::for_replies(64 << 20);
        let mut wire = Self { socket, codec, received: BytesMut::new(), next_id: 0 };
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            client_id: "measure_size".to_owned(),
            software: "measure_size".to_owned(),
        };
        wire.ask(&hello, Vec::new()).await?;
        Ok(wire)
    }

    /// The bytes of a request.
    pub fn encode<R: Request>(&mut self, request: &R, attachments: Vec<Attachment>) -> Result<BytesMut> {
        self.next_id += 1;
        let mut bytes = BytesMut::new();
        self.codec.encode(encode_request(request, CorrelationId(self.next_id), attachments), &mut bytes)?;
        Ok(bytes)
    }

    /// Sends a request and waits for its reply and what is attached.
    pub async fn ask<R: Request>(
        &mut self,
        request: &R,
        attachments: Vec<Attachment>,
    ) -> Result<(R::Reply, Vec<Bytes>)> {
        let bytes = self.encode(request, attachments)?;
        self.socket.write_all(&bytes).await?;
        let frame = self.frame().await?;
        Ok((decode_reply::<R>(&frame)?, frame.attachments))
    }

    async fn frame(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.received)? {
                return Ok(frame);
            }
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Err("the node closed the connection".into());
            }
        }
    }

    pub async fn topic_id(&mut self, name: &str) -> Result<TopicId> {
        let (reply, _) = self.ask(&Metadata { topics: Some(vec![name.to_owned()]) }, Vec::new()).await?;
        let entry = reply.topics.into_iter().next().ok_or("no topic in the answer")?;
        Ok(entry.topic.into_result()?.id)
    }
}
