//go:build linux && (amd64 || arm64)

package gcpause

import (
	"debug/buildinfo"
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
)

var (
	errNotGo   = errors.New("not a Go program")
	errUnknown = errors.New("stripped and linked with C: function addresses cannot be trusted")
)

// findFunctions returns the file offsets of functions (program -> function name) in a
// Go executable: by its symbols, or by the table the Go runtime itself uses, which a
// stripped executable (-ldflags=-s) keeps.
//
// A breakpoint at a wrong address would crash the program that is looked at. The
// runtime's table counts from the start of Go's text, which is the start of .text only
// where no C was linked: elsewhere, without symbols, it refuses.
func findFunctions(path string, names map[string]string) (map[string]uint64, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, errNotGo
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read executable: %w", err)
	}
	defer f.Close()

	wanted := make(map[string]uint64, len(names)) // by function name
	for _, fn := range names {
		wanted[fn] = 0
	}
	if !bySymbols(f, wanted) {
		cgo := true
		for _, s := range info.Settings {
			if s.Key == "CGO_ENABLED" && s.Value == "0" {
				cgo = false
			}
		}
		if cgo {
			return nil, errUnknown
		}
		if err := byRuntimeTable(f, wanted); err != nil {
			return nil, err
		}
	}
	out := make(map[string]uint64, len(names))
	for program, fn := range names {
		offset, ok := fileOffset(f, wanted[fn])
		if !ok {
			return nil, fmt.Errorf("function %s: not found", fn)
		}
		out[program] = offset
	}
	return out, nil
}

// bySymbols fills in addresses and says whether it has found all.
func bySymbols(f *elf.File, wanted map[string]uint64) bool {
	symbols, err := f.Symbols()
	if err != nil {
		return false
	}
	found := 0
	for _, s := range symbols {
		if _, ok := wanted[s.Name]; ok && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			wanted[s.Name] = s.Value
			found++
		}
	}
	return found == len(wanted)
}

func byRuntimeTable(f *elf.File, wanted map[string]uint64) error {
	section := f.Section(".gopclntab")
	if section == nil {
		section = f.Section(".data.rel.ro.gopclntab")
	}
	text := f.Section(".text")
	if section == nil || text == nil {
		return errors.New("the executable has no table of functions")
	}
	data, err := section.Data()
	if err != nil {
		return fmt.Errorf("read table of functions: %w", err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	if err != nil {
		return fmt.Errorf("read table of functions: %w", err)
	}
	for name := range wanted {
		if fn := table.LookupFunc(name); fn != nil {
			wanted[name] = fn.Entry
		}
	}
	return nil
}

// fileOffset turns an address into the place in the file it is loaded from.
func fileOffset(f *elf.File, addr uint64) (uint64, bool) {
	if addr == 0 {
		return 0, false
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Vaddr <= addr && addr < p.Vaddr+p.Filesz {
			return addr - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}
