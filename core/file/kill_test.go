package file_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/file"
)

// childFolder names the folder in the environment of the process that is killed.
const childFolder = "TRACEGATE_TEST_FOLDER"

// TestChildPutsUntilKilled is no test: it is the process that TestFolderSurvivesKill kills.
// It says of each blob that it is kept.
func TestChildPutsUntilKilled(t *testing.T) {
	dir := os.Getenv(childFolder)
	if dir == "" {
		t.Skip("only as a child")
	}
	f, err := file.NewFolder(dir, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		id := fmt.Sprintf("%d-%08d", os.Getpid(), i)
		if _, err := f.Put(context.Background(), id, "x/y", bytes.NewReader(noise(1+i*977%300_000))); err != nil {
			t.Fatal(err)
		}
		fmt.Println("kept", id)
	}
}

// TestFolderSurvivesKill: what was said to be kept is there whole after a kill -9 at any
// moment, nothing is there in part, and parts are swept.
func TestFolderSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	kept := 0
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChildPutsUntilKilled$")
		cmd.Env = append(os.Environ(), childFolder+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := 3 + rand.IntN(20)
		lines := bufio.NewScanner(out)
		for said := 0; lines.Scan(); {
			id, ok := strings.CutPrefix(lines.Text(), "kept ")
			if !ok {
				continue
			}
			if said++; said == before {
				_ = cmd.Process.Kill() // what it says until then is read on
			}
			kept++
			checkBlob(t, dir, id)
		}
		_ = cmd.Wait()
	}
	if kept < 15 {
		t.Fatalf("only %d kept", kept)
	}
	whole := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(filepath.Dir(path)) == "part" {
			return err
		}
		whole++
		checkBlob(t, dir, filepath.Base(path))
		return nil
	})
	if err != nil || whole < kept {
		t.Errorf("%d there of %d kept, %v", whole, kept, err)
	}
	f, err := file.NewFolder(dir, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if parts, err := os.ReadDir(filepath.Join(dir, "part")); err != nil || len(parts) > 0 {
		t.Errorf("%d parts left, %v", len(parts), err)
	}
}

func checkBlob(t *testing.T, dir, id string) {
	t.Helper()
	f, err := file.NewFolder(dir, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var pid, i int
	if _, err := fmt.Sscanf(id, "%d-%08d", &pid, &i); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, f, id), noise(1+i*977%300_000)) {
		t.Errorf("%s is not whole", id)
	}
}
