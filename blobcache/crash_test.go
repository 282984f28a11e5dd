package blobcache

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"shoal/blobcache/blob"
)

// The kill test runs its own binary with childDir set: then it fills a blob in
// that folder, a piece for each line on its input, which it acknowledges.
const childDir = "SHOAL_TEST_CHILD_DIR"

func killed() sample { return newSample(24*mib+11, 99) }

func fillForTheKill(dir string) {
	c, err := Open(dir, Options{})
	if err != nil {
		panic(err)
	}
	go func() { panic(c.Run(context.Background())) }()
	s := killed()
	f, _, err := c.Fill(s.Descriptor)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		i, err := strconv.Atoi(in.Text())
		if err == nil {
			err = f.WritePiece(i, s.piece(i), honest)
		}
		if err != nil {
			panic(err)
		}
		fmt.Println(i)
	}
}

// victim is a process that fills a blob until it is killed.
type victim struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func newVictim(t *testing.T, dir string) *victim {
	t.Helper()
	v := &victim{t: t, cmd: exec.Command(os.Args[0])}
	v.cmd.Env = append(os.Environ(), childDir+"="+dir)
	v.cmd.Stderr = os.Stderr
	var err error
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	v.out = bufio.NewScanner(out)
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !v.out.Scan() || v.out.Text() != "ready" {
		t.Fatalf("the child says %q", v.out.Text())
	}
	return v
}

// write has the child write a piece and waits until it has.
func (v *victim) write(i int) {
	v.t.Helper()
	fmt.Fprintln(v.in, i)
	if !v.out.Scan() || v.out.Text() != strconv.Itoa(i) {
		v.t.Fatalf("piece %d: the child says %q", i, v.out.Text())
	}
}

// kill ends the child as kill -9 does, and takes what it still said.
func (v *victim) kill() (acked []int) {
	v.t.Helper()
	if err := v.cmd.Process.Kill(); err != nil {
		v.t.Fatal(err)
	}
	for v.out.Scan() {
		i, err := strconv.Atoi(v.out.Text())
		if err != nil {
			v.t.Fatal(err)
		}
		acked = append(acked, i)
	}
	_ = v.cmd.Wait() // "signal: killed"
	v.in.Close()
	return acked
}

// claims returns the bitmap on disk, and checks that every piece in it is
// there.
func claims(t *testing.T, dir string, s sample) (is []int) {
	t.Helper()
	dir = filepath.Join(dir, "partial", fillKey{s.Digest, s.Size}.String())
	st, err := os.Stat(filepath.Join(dir, dataName))
	if err != nil {
		return nil
	}
	p, err := readBitmap(dir, s.Size, st.Size())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, dataName))
	if err != nil {
		t.Fatal(err)
	}
	for i, ok := p.have.NextSet(0); ok; i, ok = p.have.NextSet(i + 1) {
		r := blob.Piece(int(i), s.Size)
		if !bytes.Equal(data[r.Offset:r.Offset+r.Length], s.piece(int(i))) {
			t.Errorf("piece %d is claimed and not there", i)
		}
		is = append(is, int(i))
	}
	return is
}

// After kill -9, what was saved is there without being fetched again, and
// nothing is claimed that is not there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	s := killed()
	v := newVictim(t, dir)
	first := []int{7, 3, 4, 24, 0, 20}
	for _, i := range first {
		v.write(i)
	}
	slices.Sort(first)
	until(t, "the first pieces are saved, nobody asking for it", func() bool {
		return slices.Equal(claims(t, dir, s), first)
	})
	for _, i := range []int{1, 2, 15} {
		v.write(i)
	}
	v.kill()

	v = newVictim(t, dir) // and once more, out of a restored fill
	v.write(5)
	until(t, "the next piece is saved", func() bool { return slices.Contains(claims(t, dir, s), 5) })
	v.kill()

	c := open(t, dir, Options{})
	f := startFill(t, c, s)
	have := f.Have()
	for _, i := range append(first, 5) {
		if !have.Test(uint(i)) {
			t.Errorf("piece %d was saved and is gone", i)
		}
	}
	if f.Proven().Any() {
		t.Error("restored pieces count as proven")
	}
	for i := range s.n() {
		if !have.Test(uint(i)) {
			write(t, f, s, honest, i)
		}
	}
	if err := ends(t, f); err != nil || len(f.Rejections()) > 0 {
		t.Errorf("with restored pieces: %v", err)
	}
	has(t, c, s)
}

// Killed at any moment of writing as fast as it goes: nothing is claimed that
// is not there, and the fill comes to its end.
func TestKillAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	s := killed()
	next := 0
	for _, after := range []int{1, 9, 20} {
		v := newVictim(t, dir)
		go func() {
			for i := range s.n() {
				if _, err := fmt.Fprintln(v.in, (next+i)%(s.n()-1)); err != nil { // never the last: no commit
					return
				}
			}
		}()
		for range after {
			if !v.out.Scan() {
				t.Fatal("the child ends by itself")
			}
		}
		next += after
		v.kill()
		claims(t, dir, s)
	}
	c := open(t, dir, Options{})
	f := startFill(t, c, s)
	write(t, f, s, honest, s.all(0)...)
	if err := ends(t, f); err != nil || len(f.Rejections()) > 0 {
		t.Errorf("with what three kills left: %v", err)
	}
	has(t, c, s)
	clean(t, c)
}

// A piece is saved within a second, whatever else happens.
func TestSavedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, Options{})
		run(t, c)
		s := newSample(4*mib, 1)
		f := startFill(t, c, s)
		for _, i := range []int{2, 0, 1} {
			write(t, f, s, honest, i)
			pass(time.Second)
			synctest.Wait()
			if got := claims(t, dir, s); !slices.Contains(got, i) {
				t.Errorf("piece %d is not saved after a second: %v", i, got)
			}
		}
	})
}

// Data first, then the bitmap, replaced as a whole: the order of the calls
// that bring a piece to the disk.
func TestOrderOfSaving(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(2*mib, 1)
	f := startFill(t, c, s)
	calls := record(c)
	write(t, f, s, honest, 0)
	if err := f.save(); err != nil {
		t.Fatal(err)
	}
	if err := f.save(); err != nil { // nothing has changed
		t.Fatal(err)
	}
	want := []string{"write data", "fdatasync data", "fsync pieces.next", "rename pieces.next pieces", "fsync folder " + f.key.String()}
	if !slices.Equal(*calls, want) {
		t.Errorf("calls\n%q, want\n%q", *calls, want)
	}
	// A piece that is being written is not claimed: the bitmap is taken before
	// the data is synced.
	real := c.disk.syncData
	c.disk.syncData = func(*os.File) error {
		write(t, f, s, honest, 1)
		return nil
	}
	f.mu.Lock()
	f.dirty, f.judging = true, true
	f.mu.Unlock()
	if err := f.save(); err != nil {
		t.Fatal(err)
	}
	if got := claims(t, c.dir, s); !slices.Equal(got, []int{0}) {
		t.Errorf("claims %v, of which 1 was written during the sync", got)
	}
	f.mu.Lock()
	f.judging = false
	f.mu.Unlock()
	c.disk.syncData = real
	f.Fail(errors.New("enough"))
	<-f.Done()
}

// Room for the next bitmap is there before it is needed.
func TestRoomForTheNextBitmap(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(5*mib, 1)
	f := startFill(t, c, s)
	for i := range 3 {
		st, err := os.Stat(filepath.Join(c.fillDir(f.key), bitmapNext))
		if err != nil || st.Size() != int64(bitmapSize(s.Size)) {
			t.Errorf("before save %d: %v", i, err)
		}
		write(t, f, s, honest, i)
		if err := f.save(); err != nil {
			t.Fatal(err)
		}
	}
}

// record notes the calls of c.disk.
func record(c *Cache) *[]string {
	calls := &[]string{}
	note := func(what ...any) { *calls = append(*calls, fmt.Sprintln(what...)[:len(fmt.Sprintln(what...))-1]) }
	real := c.disk
	c.disk.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
		note("write", filepath.Base(f.Name()))
		return real.writeAt(f, p, off)
	}
	c.disk.syncData = func(f *os.File) error { note("fdatasync", filepath.Base(f.Name())); return real.syncData(f) }
	c.disk.sync = func(f *os.File) error { note("fsync", filepath.Base(f.Name())); return real.sync(f) }
	c.disk.rename = func(from, to string) error {
		note("rename", filepath.Base(from), filepath.Base(to))
		return real.rename(from, to)
	}
	c.disk.syncDir = func(path string) error { note("fsync folder", filepath.Base(path)); return real.syncDir(path) }
	return calls
}

// Commit is fsync, rename, fsync of the folder; and only then does anybody
// hear of the blob.
func TestOrderOfCommit(t *testing.T) {
	for name, commit := range map[string]func(*Cache, sample){
		"fill": func(c *Cache, s sample) {
			f := startFill(t, c, s)
			write(t, f, s, honest, s.all(0)...)
			if err := ends(t, f); err != nil {
				t.Error(err)
			}
		},
		"put": func(c *Cache, s sample) { put(t, c, s) },
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir(), Options{})
			s := newSample(10, 1)
			calls := record(c)
			syncDir := c.disk.syncDir
			c.disk.syncDir = func(path string) error {
				if _, ok := c.Stat(s.Digest); ok {
					t.Error("the blob is known before its name is on disk")
				}
				return syncDir(path)
			}
			commit(c, s)
			if len(*calls) != 4 {
				t.Fatalf("calls %q", *calls)
			}
			file := filepath.Base((*calls)[0][len("write "):])
			want := []string{"write " + file, "fsync " + file, "rename " + file + " " + s.Digest.Encoded(), "fsync folder sha256"}
			if !slices.Equal(*calls, want) {
				t.Errorf("calls %q, want %q", *calls, want)
			}
			has(t, c, s)
		})
	}
}

// A commit that fails at any step leaves nothing under blobs/, counts nothing,
// and says so; the readers have it all the same.
func TestCommitThatFails(t *testing.T) {
	broken := errors.New("broken")
	for name, fault := range map[string]func(*disk){
		"fsync":        func(d *disk) { d.sync = func(*os.File) error { return broken } },
		"rename":       func(d *disk) { d.rename = func(string, string) error { return broken } },
		"fsync folder": func(d *disk) { d.syncDir = func(string) error { return broken } },
	} {
		t.Run(name, func(t *testing.T) {
			book := new(logbook)
			c := open(t, t.TempDir(), Options{Logger: book.logger()})
			s := newSample(2*mib, 1)
			f := startFill(t, c, s)
			r, err := f.Open(t.Context(), blob.Range{Length: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			works := c.disk
			fault(&c.disk)
			write(t, f, s, honest, 0, 1)
			if err := ends(t, f); !errors.Is(err, broken) {
				t.Errorf("fill: %v", err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, s.data) {
				t.Errorf("reader: %d bytes, %v", len(got), err)
			}
			if files, err := os.ReadDir(c.blobDir()); err != nil || len(files) > 0 {
				t.Errorf("under blobs/: %v %v", files, err)
			}
			if _, ok := c.Stat(s.Digest); ok || book.count("blob is lost") != 1 {
				t.Errorf("known %v; log:\n%v", ok, book)
			}
			if err := c.Put(t.Context(), s.Descriptor, bytes.NewReader(s.data)); !errors.Is(err, broken) {
				t.Errorf("Put: %v", err)
			}
			c.disk = works
			f = startFill(t, c, s)
			write(t, f, s, honest, 0, 1)
			if err := ends(t, f); err != nil {
				t.Fatal(err)
			}
			has(t, c, s)
			if c.used != s.Size {
				t.Errorf("%d bytes are counted, want %d", c.used, s.Size)
			}
		})
	}
}

// What a crash between rename and record leaves is proven at the next start,
// then it counts; what is wrong goes.
func TestBlobsWithoutRecords(t *testing.T) {
	dir := t.TempDir()
	good, bad, asked := newSample(2*mib+1, 1), newSample(mib, 2), newSample(mib+1, 3)
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, s := range []sample{good, bad, asked} {
		data := bytes.Clone(s.data)
		if s.Digest == bad.Digest {
			data[5] ^= 1
		}
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", s.Digest.Encoded()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, dir, Options{})
	if len(c.Blobs()) != 0 {
		t.Error("listed before they are proven")
	}
	has(t, c, asked) // proven because it was asked for
	events, cancel := c.Subscribe()
	defer cancel()
	run(t, c)
	e := <-events
	for e.Blob.Digest == bad.Digest && e.Rotten { // they are read in any order
		e = <-events
	}
	if e.Blob.Digest != good.Digest || e.Gone {
		t.Errorf("event %v", e)
	}
	until(t, "the bad one is dropped", func() bool { return c.entryOf(bad) == nil })
	if _, err := c.Get(t.Context(), bad.Digest); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("the bad one: %v", err)
	}
	until(t, "its file is deleted", func() bool { _, err := os.Stat(c.blobPath(bad.Digest)); return os.IsNotExist(err) })
	clean(t, c)
	if chain, ok := c.Chain(good.Descriptor); !ok || len(chain) != 2 {
		t.Error("no chain of the good one")
	}
}

// A blob that was altered while no process ran is found at the next start.
func TestBlobAlteredWhileDown(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	a, b := newSample(mib+1, 1), newSample(mib+1, 2)
	put(t, c, a)
	put(t, c, b)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := garble(c.blobPath(a.Digest), mib); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, Options{})
	if d := c.Blobs(); len(d) != 1 || d[0].Digest != b.Digest {
		t.Errorf("listed: %v", d)
	}
	if _, err := c.Get(t.Context(), a.Digest); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	has(t, c, b)
	clean(t, c)
}

// A record whose file is gone, a broken meta.db, folders of fills in any
// state, and files that are none of ours: a start copes with all of it.
func TestStartAfterDamage(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	kept, gone, part := newSample(mib+1, 1), newSample(mib, 2), newSample(3*mib, 3)
	put(t, c, kept)
	put(t, c, gone)
	f := startFill(t, c, part)
	write(t, f, part, honest, 1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "blobs", "sha256", "README")
	emptied := filepath.Join(dir, "partial", gone.Digest.Encoded()+"-1048576")
	trash := filepath.Join(dir, "partial", trashPrefix+"7")
	odd := filepath.Join(dir, "partial", gone.Digest.Encoded()+"--5")
	for _, err := range []error{
		os.Remove(c.blobPath(gone.Digest)),
		os.WriteFile(foreign, nil, 0o600),
		os.MkdirAll(emptied, 0o700), // its data was renamed, the crash came then
		os.WriteFile(filepath.Join(emptied, bitmapName), nil, 0o600),
		os.MkdirAll(filepath.Join(trash, "x"), 0o700),
		os.MkdirAll(odd, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c = open(t, dir, Options{})
	if d := c.Blobs(); len(d) != 1 || d[0].Digest != kept.Digest {
		t.Errorf("blobs %v", d)
	}
	for path, want := range map[string]bool{foreign: true, odd: true, emptied: false, trash: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is left: %v", filepath.Base(path), err == nil)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	book := new(logbook)
	if err := os.WriteFile(filepath.Join(dir, "meta.db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, Options{Logger: book.logger()})
	if book.count("records of the cache are broken") != 1 {
		t.Errorf("log:\n%v", book)
	}
	run(t, c)
	until(t, "the blob is proven again", func() bool { return len(c.Blobs()) == 1 })
	has(t, c, kept)
	f = startFill(t, c, part)
	if got := f.Have().String(); got != "{1}" {
		t.Errorf("have %s", got)
	}
}

// A bitmap that cannot be trusted, or data that it does not fit, costs pieces,
// never correctness.
func TestDamagedPartial(t *testing.T) {
	s := newSample(4*mib+3, 1)
	for name, tt := range map[string]struct {
		damage func(dir string) error
		have   string
	}{
		"none":           {func(string) error { return nil }, "{0,1,3,4}"},
		"no bitmap":      {func(dir string) error { return os.Remove(filepath.Join(dir, bitmapName)) }, "{}"},
		"empty bitmap":   {func(dir string) error { return os.Truncate(filepath.Join(dir, bitmapName), 0) }, "{}"},
		"short bitmap":   {func(dir string) error { return os.Truncate(filepath.Join(dir, bitmapName), 50) }, "{}"},
		"long bitmap":    {func(dir string) error { return os.Truncate(filepath.Join(dir, bitmapName), 500) }, "{}"},
		"garbage bitmap": {func(dir string) error { return garble(filepath.Join(dir, bitmapName), 45) }, "{}"},
		"short data":     {func(dir string) error { return os.Truncate(filepath.Join(dir, dataName), 4*mib-1) }, "{0,1}"},
		"no data":        {func(dir string) error { return os.Remove(filepath.Join(dir, dataName)) }, "{}"},
		"long data":      {func(dir string) error { return os.Truncate(filepath.Join(dir, dataName), 9*mib) }, "{0,1,3,4}"},
		"garbage data":   {func(dir string) error { return garble(filepath.Join(dir, dataName), mib+5) }, "{0,1,3,4}"},
		"bitmap of a newer version": {func(dir string) error {
			return garble(filepath.Join(dir, bitmapName), int64(len("shoal pieces ")))
		}, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, dir, Options{})
			f := startFill(t, c, s)
			write(t, f, s, honest, 0, 1, 3, 4)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(c.fillDir(f.key)); err != nil {
				t.Fatal(err)
			}
			c = open(t, dir, Options{})
			f = startFill(t, c, s)
			if got := f.Have().String(); got != tt.have {
				t.Errorf("have %s, want %s", got, tt.have)
			}
			for f.Err() == nil && f.Have().Count() < uint(s.n()) {
				write(t, f, s, origin, s.all(0)...)
				until(t, "it closes or starts over", func() bool {
					select {
					case <-f.Done():
						return true
					case <-f.Rejected():
						return true
					default:
						return false
					}
				})
			}
			if err := ends(t, f); err != nil {
				t.Fatal(err)
			}
			has(t, c, s)
			clean(t, c)
		})
	}
}

func garble(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{0xa5}, at)
	return errors.Join(err, f.Close())
}

// A piece that the disk lost while the fill runs is brought again.
func TestPieceLostOnDisk(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(4*mib, 1)
	f := startFill(t, c, s)
	write(t, f, s, honest, 2, 3) // to be read back when their turn comes
	if err := os.Truncate(f.path, 2*mib+1); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, honest, 0, 1)
	if got := rejections(t, f, 1); got[0] != (Rejection{Piece: 2, Missing: true}) {
		t.Errorf("rejected %v", got)
	}
	write(t, f, s, honest, 2)
	if got := rejections(t, f, 1); got[0] != (Rejection{Piece: 3, Missing: true}) {
		t.Errorf("rejected %v", got)
	}
	write(t, f, s, honest, 3)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
}

// A piece that was lost does not flow, though it came from the origin.
func TestLostPieceDoesNotFlow(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(4*mib, 1)
	f := startFill(t, c, s)
	write(t, f, s, origin, 1, 2)
	if err := os.Truncate(f.path, mib+1); err != nil {
		t.Fatal(err)
	}
	write(t, f, s, origin, 0)
	rejections(t, f, 1)
	if got := flows(t, f); got != mib {
		t.Errorf("%d bytes flow, want one piece", got)
	}
	write(t, f, s, origin, 1)
	rejections(t, f, 1)
	write(t, f, s, origin, 2, 3)
	if err := ends(t, f); err != nil {
		t.Fatal(err)
	}
	has(t, c, s)
}

// One process owns the directory.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	v := newVictim(t, dir)
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrInUse) || !bytes.Contains([]byte(err.Error()), []byte(dir)) {
		t.Errorf("beside another process: %v", err)
	}
	v.kill()
	c := open(t, dir, Options{})
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("beside ourselves: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

// A directory that cannot be used is an error that names it.
func TestOpenErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
}
