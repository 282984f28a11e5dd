package proof

// vectors hold states as a straightforward transcription of FIPS 180-4 in
// another language gives them, block by block; its sums were compared with a
// library's.
var vectors = []struct {
	fill   byte // the blob repeats it
	size   int
	states []string
	sum    string
}{
	{0x61, 1048577, []string{
		"6b382efd5295a960a136544eb5ad0d9f77729f24e4cf6958f978ea5d23703add",
	}, "4a3f0c0c213adea174f9a3d4c13177315b588bdb2e9c1012d3d0bf0453ca0f6a"},
	{0x00, 2097152, []string{
		"de6e9901b3239712266dbc96d0f48d6fb7bc330c30ff1e76298ae3b8f5d1275e",
	}, "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee"},
	{0xff, 2109497, []string{
		"ba1c2bcd49c5eb322b5728b58f02ba58dc59db7f751ac9b4fbfa02507d319098",
		"352abe1426954b5bbd27801667769e34757d1daabb1ebe6b87a5ab1c97a3604b",
	}, "53f4c1064b06a5d8032dd6f5873a0f6c9edb5cb068187c63ccb5ba56c7ff100f"},
}
