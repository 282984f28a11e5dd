package meta

import (
	"bytes"
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
	freed, err := r.drop(tx, []byte(key))
	if err != nil {
		return err
	}
	order := tx.Bucket(r.order())
	seq, err := order.NextSequence()
	if err != nil {
		return err
	}
	stamped := binary.BigEndian.AppendUint64(make([]byte, 0, seqLen+len(value)), seq)
	if err := order.Put(stamped, []byte(key)); err != nil {
		return err
	}
	if err := tx.Bucket(r.data()).Put([]byte(key), append(stamped, value...)); err != nil {
		return err
	}
	total := r.total(tx) + int64(len(value)) - freed
	for total > r.max {
		first, oldest := order.Cursor().First()
		if first == nil {
			break
		}
		freed, err := r.drop(tx, oldest)
		if err != nil {
			return err
		}
		total -= freed
		if err := order.Delete(first); err != nil { // whatever it was the place of
			return err
		}
	}
	return r.setTotal(tx, total)
}

// delete forgets key.
func (r ring) delete(tx *bbolt.Tx, key string) error {
	freed, err := r.drop(tx, []byte(key))
	if err != nil {
		return err
	}
	return r.setTotal(tx, r.total(tx)-freed)
}

// drop takes key out, and returns how long its value was; the total is left
// as it is.
func (r ring) drop(tx *bbolt.Tx, key []byte) (freed int64, err error) {
	data := tx.Bucket(r.data())
	old := data.Get(key)
	if len(old) < seqLen {
		return 0, nil
	}
	freed = int64(len(old) - seqLen)
	key = bytes.Clone(key) // it may be the value that goes with the place
	if err := tx.Bucket(r.order()).Delete(old[:seqLen]); err != nil {
		return 0, err
	}
	return freed, data.Delete(key)
}

func (r ring) total(tx *bbolt.Tx) int64 {
	b := tx.Bucket(r.count()).Get([]byte("total"))
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func (r ring) setTotal(tx *bbolt.Tx, total int64) error {
	return tx.Bucket(r.count()).Put([]byte("total"), binary.BigEndian.AppendUint64(nil, uint64(total)))
}

// each calls f with every key that begins with prefix, and with its value,
// which is good until f returns.
func (r ring) each(tx *bbolt.Tx, prefix string, f func(key string, value []byte)) {
	c := tx.Bucket(r.data()).Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		if len(v) >= seqLen {
			f(string(k), v[seqLen:])
		}
	}
}
