package gateway

import (
	"encoding/json"
	"net/http"
	"net/url"
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

// Track asks the carrier where a parcel is.
func Track(carrier string, parcel string) (Status, error) {
	response, err := http.Get(carrier + "/track?parcel=" + url.QueryEscape(parcel))
	if err != nil {
		return Status{}, err
	}
	return Decode(response)
}
