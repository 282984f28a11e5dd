package blob

// Range is a run of bytes of a blob.
type Range struct {
	Offset int64 // of the first byte
	Length int64 // in bytes; negative means to the end of the blob
}

// End returns the offset behind the last byte of r in a blob of size bytes.
func (r Range) End(size int64) int64 {
	if r.Length < 0 || r.Length > size-r.Offset {
		return size
	}
	return r.Offset + r.Length
}

// PieceCount returns the number of pieces of a blob of size bytes. An empty
// blob has none.
func PieceCount(size int64) int {
	return int((size + PieceSize - 1) / PieceSize)
}

// Piece returns the bytes that piece i of a blob of size bytes covers.
func Piece(i int, size int64) Range {
	off := int64(i) * PieceSize
	return Range{Offset: off, Length: min(PieceSize, size-off)}
}
