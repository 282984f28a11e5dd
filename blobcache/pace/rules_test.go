package pace

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"0": 0, "unlimited": 0, "50MB": 50e6, "50MiB": 50 << 20, "400Mbit": 50e6, "1.5MB": 1_500_000, "10kB": 10_000, "80Kbit": 10_000,
		"1Gbit": 125e6, "1GB/s": 1e9, "1TB": 1e12, "64KiB": 64 << 10, "123456": 123456, "123456B": 123456, "8Mibit": 1 << 20, "5M": 5e6,
	} {
		got, err := ParseRate(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
		if again, err := ParseRate(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s, read as %d, %v", text, got, again, err)
		}
	}
	for text, want := range map[string]string{
		"": `"" is no rate`, "fast": `"fast" is no rate: use bytes a second as 50MB or 50MiB, bits as 400Mbit, or unlimited`, "-5MB": "is no rate", "50Mb": "is no rate",
		"5iB": "is no rate", "1e9": "is no rate", "5": `"5" is out of range: use 10kB/s to 1TB/s, or unlimited`, "9kB": "out of range",
		"2TB": "out of range", "0MB": "out of range", "999999999999999TB": "out of range", "5 MB": "is no rate",
	} {
		if got, err := ParseRate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %s", text, got, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{nil, "unlimited"},
		{[]string{"5MB"}, "5MB/s"},
		{[]string{"5MB", "22:00-06:00 unlimited"}, "5MB/s, 22:00-06:00 unlimited"},
		{[]string{"22:00-6:00 0"}, "unlimited, 22:00-06:00 unlimited"},
		{[]string{"5MB", "22:00-06:00", "unlimited"}, "5MB/s, 22:00-06:00 unlimited"}, // as of the environment
		{[]string{"12:00-13:30 1MB 20:00-24:00 2MB", "5MB"}, "5MB/s, 12:00-13:30 1MB/s, 20:00-24:00 2MB/s"},
	} {
		r, err := Parse(tt.words)
		if err != nil || r.String() != tt.want {
			t.Errorf("%q: %s, %v; want %s", tt.words, r, err, tt.want)
		}
		if again, err := Parse(r.Words()); err != nil || again.String() != tt.want {
			t.Errorf("%q: written as %q, read as %s, %v", tt.words, r.Words(), again, err)
		}
	}
	for _, tt := range []struct {
		words []string
		word  int
		want  string
	}{
		{[]string{"5MB", "6MB"}, 1, `"6MB" is a second rate for all hours: name the hours, as "22:00-06:00 6MB"`},
		{[]string{"5MB", "apples"}, 1, `"apples" is no rate`},
		{[]string{"5MB", "22:00-06:00"}, 1, `hours without a rate: use for instance "22:00-06:00 unlimited"`},
		{[]string{"22:00-06:00 5", "5MB"}, 0, `"5" is out of range`},
		{[]string{"22:00 5MB"}, 0, `"22:00" are no hours: use HH:MM-HH:MM, for instance 22:00-06:00`},
		{[]string{"24:00-06:00 5MB"}, 0, "are no hours"},
		{[]string{"22:60-06:00 5MB"}, 0, "are no hours"},
		{[]string{"22:00-24:01 5MB"}, 0, "are no hours"},
		{[]string{"06:00-06:00 5MB"}, 0, `"06:00-06:00" is empty, or the whole day: name the rate alone for all hours`},
		{slices.Repeat([]string{"22:00-06:00 5MB"}, maxWindows+1), maxWindows, "more than 32 windows"},
	} {
		_, err := Parse(tt.words)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Word != tt.word || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %#v, want word %d: %s", tt.words, err, tt.word, tt.want)
		}
	}
}

func TestAt(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rules string
		at    string
		want  Rate
	}{
		{"", "12:00:00", 0},
		{"5MB", "12:00:00", 5e6},
		{"5MB 22:00-06:00 unlimited", "21:59:59", 5e6},
		{"5MB 22:00-06:00 unlimited", "22:00:00", 0},
		{"5MB 22:00-06:00 unlimited", "00:00:00", 0},
		{"5MB 22:00-06:00 unlimited", "05:59:59", 0},
		{"5MB 22:00-06:00 unlimited", "06:00:00", 5e6},
		{"09:00-17:00 1MB", "08:59:59", 0},
		{"09:00-17:00 1MB", "09:00:00", 1e6},
		{"09:00-17:00 1MB", "17:00:00", 0},
		{"5MB 00:00-12:00 1MB 06:00-09:00 2MB", "07:00:00", 2e6}, // the last that holds
		{"5MB 06:00-09:00 2MB 00:00-12:00 1MB", "07:00:00", 1e6},
		{"5MB 18:00-24:00 1MB", "23:59:59", 1e6},
		{"5MB 18:00-24:00 1MB", "00:00:00", 5e6},
		{"5MB 18:00-00:00 1MB", "23:59:59", 1e6},
		{"5MB 18:00-00:00 1MB", "00:00:00", 5e6},
	} {
		r, err := Parse([]string{tt.rules})
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.ParseInLocation("2006-01-02 15:04:05", "2026-10-25 "+tt.at, berlin) // when summer time ends
		if err != nil {
			t.Fatal(err)
		}
		if got := r.At(at); got != tt.want {
			t.Errorf("%s at %s: %v, want %v", tt.rules, tt.at, got, tt.want)
		}
	}
}

// FuzzParse: what is read is written so that the same is read again.
func FuzzParse(f *testing.F) {
	f.Add("5MB 22:00-06:00 unlimited")
	f.Add("0 1:00-2:00 400Mbit 23:59-24:00 1.5GiB/s")
	f.Add("1Gi") // 1,073,741,824 has as many digits behind the point as the grammar takes
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(strings.Split(text, ","))
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("an error of more than one line: %q", err)
			}
			return
		}
		again, err := Parse(r.Words())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q: written as %s, read as %s, %v", text, r, again, err)
		}
		for hour := range 24 {
			if got := r.At(time.Date(2026, 1, 1, hour, 30, 0, 0, time.UTC)); got != Unlimited && (got < least || got > most) {
				t.Errorf("%q: %d bytes a second", text, got)
			}
		}
	})
}
