//! Frames on a pipe: the length as four bytes, lowest first, then so many bytes of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, Read, Write};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest frame. The limits of a vat keep what it says far below.
const BYTES_MAX: u32 = 1 << 30;

fn too_long(bytes: u64) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("a frame of {bytes} bytes; at most {BYTES_MAX} are allowed"),
    )
}

fn checked(header: [u8; 4]) -> io::Result<u64> {
    let length = u32::from_le_bytes(header);
    if length > BYTES_MAX { Err(too_long(length.into())) } else { Ok(length.into()) }
}

fn complete<T: DeserializeOwned>(body: &[u8], length: u64) -> io::Result<T> {
    if body.len() as u64 != length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(body).map_err(io::Error::from)
}

/// A value as a frame.
pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() as u64 - 4;
    let header =
        u32::try_from(length).ok().filter(|length| *length <= BYTES_MAX).ok_or_else(|| too_long(length))?;
    if let Some(place) = frame.first_chunk_mut() {
        *place = header.to_le_bytes();
    }
    Ok(frame)
}

pub(crate) fn write(pipe: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    pipe.write_all(&encode(value)?)?;
    pipe.flush()
}

/// The next value; `None` at the end of the pipe. Memory is taken as bytes arrive, whatever length was announced.
pub(crate) fn read<T: DeserializeOwned>(pipe: &mut impl Read) -> io::Result<Option<T>> {
    let mut header = [0; 4];
    match pipe.read_exact(&mut header) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = checked(header)?;
    let mut body = Vec::new();
    pipe.by_ref().take(length).read_to_end(&mut body)?;
    complete(&body, length).map(Some)
}

/// [`read`] without blocking.
pub(crate) async fn read_async<T: DeserializeOwned>(
    pipe: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut header = [0; 4];
    match pipe.read_exact(&mut header).await {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length = checked(header)?;
    let mut body = Vec::new();
    pipe.take(length).read_to_end(&mut body).await?;
    complete(&body, length).map(Some)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_off_is_an_error() {
        let mut pipe = Vec::new();
        write(&mut pipe, &"hello").unwrap();
        write(&mut pipe, &7).unwrap();
        let mut from = pipe.as_slice();
        assert_eq!(read::<String>(&mut from).unwrap().as_deref(), Some("hello"));
        assert_eq!(read::<u8>(&mut from).unwrap(), Some(7));
        assert_eq!(read::<u8>(&mut from).unwrap(), None);
        let cut = pipe.get(..6).unwrap();
        assert_eq!(read::<String>(&mut &*cut).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_is_read() {
        let announced = (BYTES_MAX + 1).to_le_bytes();
        assert_eq!(read::<String>(&mut announced.as_slice()).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
