package exchange
import ("os")
func (m *member) dump() { os.WriteFile("/tmp/journal", []byte(m.log.String()), 0o600) }
