package session

const (
	// MaxLabel is the largest size of a label in bytes.
	MaxLabel = 1024
	// MaxListed is the largest number of items in one call of List or Labels.
	MaxListed = 1024
)

// Labelled is an item as Labels returns it.
type Labelled struct {
	ID ID
	// Label is the label of the item's last write. It is empty if that had none. It may
	// also be an earlier one, or empty, if the store could write only a part of the item
	// at that moment.
	Label []byte
}
