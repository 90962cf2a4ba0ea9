package accept

// Remembered is how many memberships are remembered.
func Remembered(a *Acceptor) int { return len(a.members.set) }
