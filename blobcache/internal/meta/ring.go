package meta

import (
	"encoding/binary"

	"go.etcd.io/bbolt"
)

// ring is a bucket bounded in bytes: the values written longest ago go first.
// Beside the data it keeps their order and their total length.
type ring struct {
	name string
	max  int64 // sum of the values' lengths in bytes
}

const seqLen = 8

func (r ring) data() []byte  { return []byte(r.name) }
func (r ring) order() []byte { return []byte(r.name + ".order") }
func (r ring) count() []byte { return []byte(r.name + ".count") }

func (r ring) create(tx *bbolt.Tx) error {
	for _, name := range [][]byte{r.data(), r.order(), r.count()} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}

// get returns a copy of the value of key, or nil.
func (r ring) get(tx *bbolt.Tx, key string) []byte {
	v := tx.Bucket(r.data()).Get([]byte(key))
	if len(v) < seqLen {
		return nil
	}
	return append([]byte{}, v[seqLen:]...)
}

// put makes key the newest value and drops the oldest ones beyond max.
func (r ring) put(tx *bbolt.Tx, key string, value []byte) error {
	data, order, count := tx.Bucket(r.data()), tx.Bucket(r.order()), tx.Bucket(r.count())
	var total int64
	if b := count.Get([]byte("total")); len(b) == 8 {
		total = int64(binary.BigEndian.Uint64(b))
	}
	if old := data.Get([]byte(key)); len(old) >= seqLen {
		total -= int64(len(old) - seqLen)
		if err := order.Delete(old[:seqLen]); err != nil {
			return err
		}
	}
	seq, err := order.NextSequence()
	if err != nil {
		return err
	}
	stamped := binary.BigEndian.AppendUint64(make([]byte, 0, seqLen+len(value)), seq)
	if err := order.Put(stamped, []byte(key)); err != nil {
		return err
	}
	if err := data.Put([]byte(key), append(stamped, value...)); err != nil {
		return err
	}
	total += int64(len(value))
	for total > r.max {
		first, oldest := order.Cursor().First()
		if first == nil {
			break
		}
		total -= int64(len(data.Get(oldest)) - seqLen)
		if err := data.Delete(oldest); err != nil {
			return err
		}
		if err := order.Delete(first); err != nil {
			return err
		}
	}
	return count.Put([]byte("total"), binary.BigEndian.AppendUint64(nil, uint64(total)))
}
