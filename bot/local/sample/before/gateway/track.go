package gateway

import (
	"encoding/json"
	"net/http"
)

type Status struct {
	Parcel string `json:"parcel"`
	Place  string `json:"place"`
}

func Decode(response *http.Response) (Status, error) {
	defer response.Body.Close()
	var status Status
	err := json.NewDecoder(response.Body).Decode(&status)
	return status, err
}
